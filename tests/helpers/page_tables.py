"""Read the tables of a page as people see them: what stands under which heading, in whose line."""

from html.parser import HTMLParser


class _Table(HTMLParser):
    def __init__(self, name):
        super().__init__()
        self.name, self.inside, self.cell = name, False, None
        self.rows = []  # (attributes of the row, [[attributes of the cell, text]])

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "table":
            self.inside = attrs.get("id") == self.name
        if not self.inside:
            return
        if tag == "tr":
            self.rows.append((attrs, []))
        elif tag in ("td", "th"):
            self.cell = [attrs, ""]
            self.rows[-1][1].append(self.cell)
        elif tag in ("small", "span", "br", "i") and self.cell:
            self.cell[1] += " "

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None
        elif tag == "table":
            self.inside = False

    def handle_data(self, data):
        if self.cell is not None:
            self.cell[1] += data


def page_table(page, name):
    """Return the lines of a table whose head is one row: attributes of the line, and text by heading.

    Args:
        page: HTML.
        name: the table's id.
    """
    table = _Table(name)
    table.feed(page)
    head, *lines = table.rows
    headings = [" ".join(text.split()) for attrs, text in head[1] for _ in range(int(attrs.get("colspan", 1)))]
    return [
        (
            attrs,
            {heading: " ".join(cell[1].split()) for heading, cell in reversed(list(zip(headings, cells, strict=True)))},
        )
        for attrs, cells in lines
    ]


def page_rows(page, name="table"):
    """Return the attributes of the lines of a table, each with the texts of its cells in order."""
    table = _Table(name)
    table.feed(page)
    return [(attrs, [" ".join(text.split()) for _, text in cells]) for attrs, cells in table.rows if "data-s" in attrs]
