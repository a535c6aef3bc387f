"""The values that travel between the rooms."""

from core.types.counts import CaptionCounts, LedgerCounts
from core.types.encoders import Captioned, Encoded, EncoderInfo, Modality, Vector
from core.types.inputs import PROBE, Box, Cropped, EncoderInput, PictureInput, WholeNumber
from core.types.products import Attributes, Caption, NewPicture, Picture, Product
from core.types.rows import SCORE_TOLERANCE, CollectionInfo, Hit, IndexItem, Removal, VectorRow, row_key

__all__ = [
    "PROBE",
    "SCORE_TOLERANCE",
    "Attributes",
    "Box",
    "Caption",
    "CaptionCounts",
    "Captioned",
    "CollectionInfo",
    "Cropped",
    "Encoded",
    "EncoderInfo",
    "EncoderInput",
    "Hit",
    "IndexItem",
    "LedgerCounts",
    "Modality",
    "NewPicture",
    "Picture",
    "PictureInput",
    "Product",
    "Removal",
    "Vector",
    "VectorRow",
    "WholeNumber",
    "row_key",
]
