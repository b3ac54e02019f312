"""The report as a page with pictures: an encapsulated PDF (PS3.3 A.45.1).

For viewers and hospital systems that show documents and nothing else. The words are those of the
grounded report; the same job gives the same bytes again.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import EncapsulatedPDFStorage
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.enums import TA_LEFT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    Flowable,
    Image,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from dicom_node.objects.conformance_rules import text_of
from dicom_node.objects.encoding import new_object
from dicom_node.objects.identifiers import ResultIdentifiers
from dicom_node.objects.measurements import Measurements
from dicom_node.objects.page_fonts import PAGE_FONT, marked, register_fonts
from dicom_node.objects.pixels import PixelValues
from dicom_node.objects.provenance import (
    LONG_STRING,
    AlgorithmIdentity,
    NodeIdentity,
    complete_header,
    marker,
    single_line,
)
from dicom_node.objects.references import frame_references
from dicom_node.objects.rendering import draw_frame
from dicom_node.objects.report_context import code, paragraph
from dicom_node.objects.report_narrative import impression, sentence, ungrounded_sentence
from dicom_node.objects.segments import Segment, segments_of
from dicom_node.objects.series import Source
from inference.findings import Interpretation

KIND: Final = "report_document"
TITLE: Final = "Diagnostic Imaging Report"
MOST_PICTURES: Final = 12
_MARGIN: Final = 18 * mm
_PICTURE_WIDTH: Final = 84 * mm
_PICTURE_HEIGHT: Final = 200 * mm


def build_document(
    source: Source,
    pixels: PixelValues,
    segments: Sequence[Segment],
    interpretation: Interpretation,
    measurements: Mapping[int, Measurements],
    identifiers: ResultIdentifiers,
    node: NodeIdentity,
) -> Dataset:
    """Build the encapsulated PDF of a job's report, with a picture of each finding's key slice.

    Parameters
    ----------
    source, pixels
        What was looked at.
    segments
        The findings with a mask.
    interpretation, measurements
        What was found, and measured of it (by index of the finding).
    """
    algorithm = AlgorithmIdentity.of(interpretation, node)
    dataset = new_object(EncapsulatedPDFStorage, "DOC")
    dataset.ConversionType = "WSD"
    complete_header(
        dataset,
        source.headers[0],
        kind=KIND,
        pair=identifiers.further(KIND),
        identifiers=identifiers,
        node=node,
        algorithm=algorithm,
    )
    # Name and Patient ID stand on the page.
    dataset.BurnedInAnnotation = "YES"
    dataset.AcquisitionDateTime = ""
    dataset.DocumentTitle = f"{TITLE} (AI)"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.ConceptNameCodeSequence = DicomSequence([code("18748-4", "LN", TITLE)])
    dataset.SourceInstanceSequence = _sources(source)
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    page = _pdf(source, pixels, segments, interpretation, measurements, algorithm, node)
    dataset.EncapsulatedDocumentLength = len(page)
    dataset.EncapsulatedDocument = page + b"\0" * (len(page) % 2)
    return dataset


def draw_page(
    source: Source,
    pixels: PixelValues,
    interpretation: Interpretation,
    measurements: Mapping[int, Measurements],
    node: NodeIdentity,
) -> bytes:
    """Draw the page alone, as a PDF: the document that `build_document` would encapsulate."""
    algorithm = AlgorithmIdentity.of(interpretation, node)
    segments = segments_of(interpretation)
    return _pdf(source, pixels, segments, interpretation, measurements, algorithm, node)


def _sources(source: Source) -> DicomSequence:
    items = []
    for header in source.headers:
        item = Dataset()
        item.ReferencedSOPClassUID = header.SOPClassUID
        item.ReferencedSOPInstanceUID = header.SOPInstanceUID
        items.append(item)
    return DicomSequence(items)


def _pdf(
    source: Source,
    pixels: PixelValues,
    segments: Sequence[Segment],
    interpretation: Interpretation,
    measurements: Mapping[int, Measurements],
    algorithm: AlgorithmIdentity,
    node: NodeIdentity,
) -> bytes:
    by_index = {segment.index: segment for segment in segments}
    identity, concluded = _identity(source), impression(interpretation, algorithm, node)
    references = frame_references(source)
    sentences = []
    for index, finding in enumerate(interpretation.findings):
        segment = by_index.get(index)
        if segment is None:
            sentences.append(ungrounded_sentence(finding))
            continue
        key = references[finding.key_frame or 0]
        sentences.append(sentence(finding, segment.number, index, key, measurements.get(index)))
    captions = [paragraph(segment.finding.target) for segment in segments]
    register_fonts([*identity.values(), *sentences, *captions, concluded])
    body, small, heading = _style(10), _style(8, HexColor("#5b6470")), _style(13)
    parts: list[Flowable] = [
        Paragraph(marked(TITLE), _style(18)),
        Spacer(1, 3 * mm),
        _table_of(identity),
        Spacer(1, 5 * mm),
        Paragraph("Findings", heading),
        Spacer(1, 2 * mm),
        *(Paragraph(marked(words), body) for words in sentences),
    ]
    pictures = [
        _picture(source, pixels, segments, segment, small) for segment in segments[:MOST_PICTURES]
    ]
    parts += [Spacer(1, 4 * mm), *_pairs(pictures)]
    if len(segments) > MOST_PICTURES:
        more = len(segments) - MOST_PICTURES
        parts.append(Paragraph(f"{more} more findings have no picture here; see the SEG.", small))
    parts += [
        Spacer(1, 4 * mm),
        Paragraph("Impression", heading),
        Spacer(1, 2 * mm),
        Paragraph(marked(concluded), body),
    ]
    buffer = io.BytesIO()
    footer = single_line(
        f"{marker(node)}  {algorithm.name} {algorithm.version}, weights {algorithm.digest[:16]}; "
        f"{node.model_name} {node.software_version}",
        160,
    )

    def write_footer(canvas: Canvas, document: SimpleDocTemplate) -> None:
        canvas.setFont(PAGE_FONT, 7)
        canvas.setFillColor(HexColor("#5b6470"))
        canvas.drawString(_MARGIN, 10 * mm, footer)
        canvas.drawRightString(A4[0] - _MARGIN, 14 * mm, f"page {document.page}")

    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=f"{TITLE} (AI)",
        author=single_line(f"{algorithm.name} {algorithm.version}", LONG_STRING),
        # Without clock and random numbers: a retry must give the same bytes.
        invariant=1,
    )
    document.build(parts, onFirstPage=write_footer, onLaterPages=write_footer)
    return buffer.getvalue()


def _identity(source: Source) -> dict[str, str]:
    """Return whose images these are, as the source has it: what is known, by its name."""
    header = source.headers[0]
    rows = {
        "Patient": re.sub("[ ^]+", " ", _between_groups(header)).strip(),
        "Patient ID": text_of(header, "PatientID"),
        "Birth date": _date(header, "PatientBirthDate"),
        "Sex": text_of(header, "PatientSex"),
        "Study": f"{_date(header, 'StudyDate')}  {text_of(header, 'StudyDescription')}".strip(),
        "Accession number": text_of(header, "AccessionNumber"),
        "Series": _joined(header, "Modality", "SeriesDescription"),
    }
    return {name: paragraph(value) for name, value in rows.items() if value}


def _between_groups(header: Dataset) -> str:
    """Return the patient's name with its component groups apart (PS3.5 6.2.1.2)."""
    groups = text_of(header, "PatientName").split("=")
    return " / ".join(group.strip("^ ") for group in groups if group.strip("^ "))


def _table_of(identity: Mapping[str, str]) -> Table:
    cells = [
        [Paragraph(name, _style(8, HexColor("#5b6470"))), Paragraph(marked(value), _style(9))]
        for name, value in identity.items()
    ]
    table = Table(cells, colWidths=[32 * mm, None])
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 1),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
                ("LINEBELOW", (0, -1), (-1, -1), 0.5, HexColor("#c3c9d1")),
            ]
        )
    )
    return table


def _date(header: Dataset, keyword: str) -> str:
    """Return a date as year-month-day; what is none stays as it is."""
    text = text_of(header, keyword)
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if re.fullmatch(r"\d{8}", text) else text


def _joined(header: Dataset, *keywords: str) -> str:
    return ", ".join(filter(None, (text_of(header, keyword) for keyword in keywords)))


def _picture(
    source: Source,
    pixels: PixelValues,
    segments: Sequence[Segment],
    segment: Segment,
    style: ParagraphStyle,
) -> list[Flowable]:
    frame = segment.finding.key_frame or 0
    number = frame_references(source)[frame].image_number
    drawn = draw_frame(
        source, pixels, segments, frame, heading=f"image {number}", footer="key slice"
    )
    data = io.BytesIO()
    drawn.save(data, "PNG")
    data.seek(0)
    caption = f"F{segment.index + 1}: {paragraph(segment.finding.target)}"
    scale = min(_PICTURE_WIDTH / drawn.width, _PICTURE_HEIGHT / drawn.height)
    image = Image(data, drawn.width * scale, drawn.height * scale, hAlign="LEFT")
    return [image, Spacer(1, mm), Paragraph(marked(caption), style), Spacer(1, 3 * mm)]


def _pairs(pictures: Sequence[list[Flowable]]) -> list[Flowable]:
    """Lay pictures out two in a row."""
    rows: list[Flowable] = []
    for start in range(0, len(pictures), 2):
        pair = list(pictures[start : start + 2])
        cells = [[*pair, *[[]] * (2 - len(pair))]]
        table = Table(cells, colWidths=[_PICTURE_WIDTH + 4 * mm] * 2, hAlign="LEFT")
        table.setStyle(
            TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 0)])
        )
        rows.append(table)
    return rows


def _style(size: int, colour: Color | None = None) -> ParagraphStyle:
    return ParagraphStyle(
        f"s{size}",
        fontName=PAGE_FONT,
        fontSize=size,
        leading=size * 1.4,
        alignment=TA_LEFT,
        textColor=colour or HexColor("#14181d"),
        splitLongWords=1,
    )
