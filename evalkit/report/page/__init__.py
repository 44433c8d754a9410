"""The report as one HTML file that needs nothing else: no network, no server, no script to read."""

from evalkit.report.page.writing import render, write_page, write_report

__all__ = ["render", "write_page", "write_report"]
