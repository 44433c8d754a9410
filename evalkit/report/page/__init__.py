"""The report as one HTML file that needs nothing else: no network, no server, no script to read."""

from evalkit.report.page.writing import check_path, render, write_page, write_report

__all__ = ["check_path", "render", "write_page", "write_report"]
