"""What the pure rooms ask of the others, as Protocols; fakes and real things implement them alike."""

from core.ports.blobs import Blobs
from core.ports.captions import Captions
from core.ports.encoders import EncoderClient
from core.ports.ledger import Ledger
from core.ports.lexical import LexicalIndex
from core.ports.products import Products
from core.ports.vectors import VectorStore

__all__ = [
    "Blobs",
    "Captions",
    "EncoderClient",
    "Ledger",
    "LexicalIndex",
    "Products",
    "VectorStore",
]
