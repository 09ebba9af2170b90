"""A program as one page to look at, which needs no network: start at `page.report_page`."""
