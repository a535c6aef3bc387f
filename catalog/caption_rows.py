"""The captions of products, inside a transaction that the caller holds."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select

from catalog.tables import CaptionRow, ImageRow

# Written once: every search reads captions, and to build a statement takes as long as to run it.
_CAPTIONS_OF_PRODUCTS = (
    select(CaptionRow.image_id, CaptionRow.caption)
    .join(ImageRow, ImageRow.id == CaptionRow.image_id)
    .where(ImageRow.product_id.in_(bindparam("product_ids", expanding=True)), CaptionRow.caption.is_not(None))
    .order_by(CaptionRow.created_at, CaptionRow.model.desc())
)


def newest_captions(connection: Connection, product_ids: Sequence[str]) -> dict[str, str]:
    """The newest caption of each picture of these products that has one, by image id."""
    rows = connection.execute(_CAPTIONS_OF_PRODUCTS, {"product_ids": product_ids})
    # The last of a picture stays.
    return {image_id: caption for image_id, caption in rows if caption is not None}
