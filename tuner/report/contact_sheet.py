"""The page of training images as a network sees them."""

from pathlib import Path

from tuner.inspection.augmented import ContactSheet
from tuner.report.page import write_page

FILE = "contact_sheet.html"
"""The page's name among the artifacts of a job's run."""


def write_contact_sheet(path: Path, sheet: ContactSheet, name: str) -> None:
    """Write a contact sheet as one HTML file without external resources.

    Args:
        path: The file to write.
        sheet: The images.
        name: The experiment's name.
    """
    write_page(path, "contact_sheet.html.jinja", has_plots=False, name=name, sheet=sheet)
