"""The card that a published checkpoint is given here: it claims nothing that was not measured.

The authors publish no card. Ours names the checkpoint, its input as far as it is known, and every
structure that it was trained on as *not listed*, so that the node refuses each in a sentence until
its score and its calibration have been measured. Imports no torch.
"""

from __future__ import annotations

from inference.card import CardModality, ModelCard, NotListed
from inference.intensity import IntensityPolicy

NOT_MEASURED = (
    "it was published, but neither its accuracy nor its calibration of presence has been measured "
    "for this node; see docs/models/unibiomed.md"
)

_MODALITIES = (
    CardModality(
        name="CT",
        dicom=("CT",),
        kind="volume",
        intensity=IntensityPolicy(kind="window", lower=-150, upper=250, unit="HU"),
    ),
    CardModality(
        name="MRI",
        dicom=("MR",),
        kind="volume",
        intensity=IntensityPolicy(kind="percentile", lower=0.5, upper=99.5),
    ),
    CardModality(
        name="X-Ray",
        dicom=("CR", "DX"),
        kind="images",
        intensity=IntensityPolicy(kind="percentile", lower=0.5, upper=99.5),
    ),
    CardModality(
        name="mammography",
        dicom=("MG",),
        kind="images",
        intensity=IntensityPolicy(kind="percentile", lower=0.5, upper=99.5),
    ),
    CardModality(
        name="ultrasound",
        dicom=("US",),
        kind="images",
        intensity=IntensityPolicy(kind="eight_bit"),
    ),
    CardModality(
        name="endoscopy", dicom=("ES",), kind="images", intensity=IntensityPolicy(kind="eight_bit")
    ),
    CardModality(
        name="dermoscopy",
        dicom=("DMS", "XC"),
        kind="images",
        intensity=IntensityPolicy(kind="eight_bit"),
    ),
    CardModality(
        name="fundus", dicom=("OP",), kind="images", intensity=IntensityPolicy(kind="eight_bit")
    ),
    CardModality(
        name="OCT", dicom=("OPT",), kind="images", intensity=IntensityPolicy(kind="eight_bit")
    ),
    CardModality(
        name="pathology",
        dicom=("SM", "GM"),
        kind="images",
        intensity=IntensityPolicy(kind="eight_bit"),
    ),
)

_PUBLISHED = {
    "CT": (
        "liver", "spleen", "pancreas", "left kidney", "right kidney", "gallbladder", "stomach",
        "aorta", "esophagus", "bladder", "lung", "liver tumor", "kidney tumor", "pancreas tumor",
        "lung tumor", "lung nodule", "colon tumor", "COVID-19 infection", "hepatic vessel",
    ),
    "MRI": (
        "left ventricle", "right ventricle", "myocardium", "left atrium", "hippocampus",
        "prostate", "brain tumor", "lower-grade glioma",
    ),
    "X-Ray": ("lung", "pneumothorax", "COVID-19 infection", "viral pneumonia", "lung opacity"),
    "mammography": ("breast tumor",),
    "ultrasound": ("breast tumor", "liver", "left ventricle", "fetal head"),
    "endoscopy": ("polyp",),
    "dermoscopy": ("skin lesion",),
    "fundus": ("optic disc", "optic cup", "retinal vessel"),
    "OCT": ("macular edema",),
    "pathology": ("nuclei", "gland", "tumor"),
}  # fmt: skip
"""Structures of the published training sets, by modality; the phrases are ours."""


def default_card(version: str) -> ModelCard:
    """Make the card of a published checkpoint on which nothing has been measured.

    Parameters
    ----------
    version
        What tells this copy from another, e.g. the commit of its repository.
    """
    return ModelCard(
        name="UniBiomed",
        version=version,
        licence="not stated here: read the licence in the repository before use; some of the "
        "training data allow no commercial use",
        intended_use="Research on grounded interpretation of biomedical images.",
        limitations=(
            "Nothing was measured on this copy: no target is listed, and the node refuses them all "
            "until a card with measured scores replaces this one.",
            "The published training had no images without the target, so that the model draws a "
            "mask whether the target is there or not.",
            "The grey levels of the published training images are not documented; those of this "
            "card follow BiomedParse, from which many of them came, and give all of CT the "
            "abdominal window.",
            "3D tracking was hardly trained: each slice is interpreted on its own.",
        ),
        training_data=("see Wu et al., UniBiomed, arXiv 2504.21336",),
        modalities=_MODALITIES,
        targets=(),
        not_listed=tuple(
            NotListed(name=name, modality=modality, reason=NOT_MEASURED)
            for modality, names in _PUBLISHED.items()
            for name in names
        ),
    )
