"""Read the tables of a page as people see them: what stands under which heading, in whose line."""

from html.parser import HTMLParser


class Tables(HTMLParser):
    """The tables of a page by their id: their lines as (attributes, cells), cells as (attributes, pieces of text)."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.lines, self.cell = {}, None, None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "table":
            self.lines = self.tables.setdefault(attributes.get("id", str(len(self.tables))), [])
        elif tag == "tr" and self.lines is not None:
            self.lines.append((attributes, []))
        elif tag in ("td", "th") and self.lines:
            self.cell = (attributes, [])
            self.lines[-1][1].append(self.cell)
        elif tag in ("small", "span", "br", "i") and self.cell:
            self.cell[1].append(" ")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None
        elif tag == "table":
            self.lines = None

    def handle_data(self, data):
        if self.cell:
            self.cell[1].append(data)


def texts(cells):
    """Return the text of each cell, white space folded."""
    return [" ".join("".join(pieces).split()) for _, pieces in cells]


def page_table(page, name):
    """Return the lines of a table whose head is one row: attributes of the line, and text by heading.

    Args:
        page: HTML.
        name: the table's id.
    """
    head, *lines = Tables(page).tables[name]
    spans = [int(attrs.get("colspan", 1)) for attrs, _ in head[1]]
    headings = [text for text, span in zip(texts(head[1]), spans, strict=True) for _ in range(span)]
    return [
        (attrs, {heading: text for heading, text in reversed(list(zip(headings, texts(cells), strict=True)))})
        for attrs, cells in lines
    ]


def page_rows(page, name="table"):
    """Return the attributes of the lines of a table, each with the texts of its cells in order."""
    return [(attrs, texts(cells)) for attrs, cells in Tables(page).tables[name] if "data-s" in attrs]
