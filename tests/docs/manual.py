# SPDX-License-Identifier: MIT
"""What is written in manual pages (mdoc), README, the sample configuration and the patch
for collectd, as far as it can be compared."""

import collections
import os
import re

ROOT = os.path.abspath(f"{os.path.dirname(os.path.abspath(__file__))}/../..")
ESCAPES = {r"\-": "-", r"\&": "", r"\(ga": "`", r"\(aq": "'", r"\(dq": '"', r"\(ha": "^",
           r"\e": "\\"}
MACROS = set("Ar Cm Dv Fn It Li Op Pa Pf Pq Ql Qq Sx Va Xr".split())

# An item of a list: all that it is for, and its text.
Item = collections.namedtuple("Item", "heads text")


def read(path):
    """A file of the source tree."""
    with open(f"{ROOT}/{path}", encoding="utf-8") as file:
        return file.read()


def plain(line):
    """A line of mdoc as a reader sees it, but for blanks and quotes."""
    if line.startswith("."):
        words, dash, glue = [], "", False
        for word in line[1:].split():
            if word == "Ns":
                glue = True
            elif word == "Fl" or word in MACROS:
                dash = "-" if word == "Fl" else ""
            else:
                word = dash + word if word[0].isalnum() or word[0] == "-" else word
                words.append(words.pop() + word if glue else word)
                glue = False
        line = " ".join(words)
    for escape, character in ESCAPES.items():
        line = line.replace(escape, character)
    return line


def section(page, name):
    """A section's lines."""
    return page.split(f"\n.Sh {name}\n")[1].split("\n.Sh ")[0].splitlines()


def items(lines):
    """The items of lists that are in no other list; what is below them is text."""
    found, depth, fresh = [], 0, True
    for line in lines:
        if line.startswith((".Bl", ".El")):
            depth += 1 if line.startswith(".Bl") else -1
            fresh = fresh or depth == 0
        elif depth == 1 and line.startswith(".It"):
            if fresh or found[-1].text:
                found.append(Item([], []))
            found[-1].heads.append(plain(line))
            fresh = False
        elif depth >= 1 and line != ".Pp":
            found[-1].text.append(plain(line))
    return [Item(heads, re.sub(r" ([.,;:])(?= |$)", r"\1", " ".join(text)))
            for heads, text in found]


def readme_section(title):
    """The text below a heading of README, up to the next one."""
    return re.search(rf"^##+ {title}\n(.*?)(?=^##+ |\Z)", read("README.md"),
                     re.MULTILINE | re.DOTALL)[1]


def readme_table(title, column):
    """The rows of the table whose header begins with `column`, as lists of cells."""
    rows = readme_section(title).split(f"| {column}")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]


def sample(text):
    """The options in a commented block, as lines without quotes: those that are set, and
    those that are commented in the block, too."""
    block = re.search(r'^#<Plugin reclaim>\n(.*?)^#</Plugin>', text, re.MULTILINE | re.DOTALL)[1]
    return ([line.split("  ")[0].replace('"', "")
             for line in re.findall(rf"^#\s+{comment}([A-Z]\w+ .*)$", block, re.MULTILINE)]
            for comment in ("", "#"))


def pod_items(text):
    """{option: (the rest of its head, its text)} of a manual page in POD."""
    return {name: (head, " ".join(text.split())) for name, head, text in
            re.findall(r"^=item B<([A-Z]\w*)> (.*)\n((?:(?!=).*\n)*)", text, re.MULTILINE)}


def added(patch, file):
    """What a patch adds to a file."""
    part = re.search(rf"^\+\+\+ b/{re.escape(file)}$(.*?)(?=^diff |\Z)", patch,
                     re.MULTILINE | re.DOTALL)[1]
    return "\n".join(re.findall(r"^\+(.*)$", part, re.MULTILINE))
