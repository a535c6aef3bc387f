"""The classes that Serve runs, one replica each."""
