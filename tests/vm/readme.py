# SPDX-License-Identifier: MIT
"""Tables in the project's README, between comments that name them."""

LEGEND = """\
Stalls are the plugin's / ftrace's / the kernel's (`allocstall`), pages the
plugin's / ftrace's. `pgsteal_direct`, the kernel's count, has no slab pages,
which a stall frees too; * marks that it has memcg reclaim's pages as well.
Kernels are Debian's; guests have 512 MiB, and 2 CPUs if nothing else is said.
Since Linux 7.0 the kernel can hide a stall's end from the plugin: that stall is
counted, its pages are not ([How it works](#how-it-works))."""


def replace(text, name, table):
    """The README's text with another table of that name."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{table}{end}{after}"


def update(path, tables):
    """Puts tables, {name: text}, into a README."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for name, table in tables.items():
        text = replace(text, name, table)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def replace_table(text, table):
    """The same, with another table of kernels."""
    return replace(text, "kernels", f"{table}\n\n{LEGEND}\n")
