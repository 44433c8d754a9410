"""Reports: tables for the terminal, Markdown and HTML."""
