"""What all tables of the catalog have in common."""

from sqlalchemy import MetaData, String
from sqlalchemy.orm import DeclarativeBase

# Compared byte by byte everywhere, so that a page of products has one order on every database and locale.
PRODUCT_ID = String(200).with_variant(String(200, collation="C"), "postgresql")
IMAGE_ID = String(32)
SHA256 = String(64)
COLLECTION = String(255)


class Base(DeclarativeBase):
    """Names every constraint, so that a later migration can drop it on any database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
