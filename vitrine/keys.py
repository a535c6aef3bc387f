"""API keys: `vitrine.keys`."""

from vitrine import async_sender, sender
from vitrine.calls import keys


class Keys:
    """Make, list and revoke keys; all of it takes an admin's key."""

    def __init__(self, sending: sender.Sender) -> None:
        self._sender = sending

    create = sender.sent(keys.create)
    list = sender.sent(keys.listed)
    revoke = sender.sent(keys.revoke)


class AsyncKeys:
    """Make, list and revoke keys; all of it takes an admin's key."""

    def __init__(self, sending: async_sender.AsyncSender) -> None:
        self._sender = sending

    create = async_sender.sent(keys.create)
    list = async_sender.sent(keys.listed)
    revoke = async_sender.sent(keys.revoke)
