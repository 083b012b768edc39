# SPDX-License-Identifier: MIT
"""The table of kernels in the project's README. Pure."""

BEGIN, END = "<!-- kernels: begin -->\n", "<!-- kernels: end -->\n"

LEGEND = """\
Stalls are the plugin's / ftrace's / the kernel's (`allocstall`), pages the
plugin's / ftrace's. `pgsteal_direct`, the kernel's count, has no slab pages,
which a stall frees too; * marks that it has memcg reclaim's pages as well.
Kernels are Debian's; guests have 512 MiB, and 2 CPUs if nothing else is said.
Since Linux 7.0 the kernel can hide a stall's end from the plugin: that stall is
counted, its pages are not ([How it works](#how-it-works))."""


def replace_table(text, table):
    """The README's text with another table between the two markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{table}\n\n{LEGEND}\n{END}{after}"
