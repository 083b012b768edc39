# SPDX-License-Identifier: MIT
"""How the cost of a stall scales: what was measured, whether its sums hold, and
its tables. Pure."""

import dataclasses
import json
import statistics

PROGRAMS = ("memcg_begin", "memcg_end", "empty_begin", "empty_end")


def read_programs(listing, old=()):
    """{name: (ns, runs)} of our programs in a JSON list of bpftool's, without
    those whose ids are old."""
    return {program["name"]: (program.get("run_time_ns", 0), program.get("run_cnt", 0))
            for program in json.loads(listing)
            if program.get("name") in PROGRAMS and program["id"] not in old}


def read_ids(listing):
    """The ids of all programs of such a list."""
    return {program["id"] for program in json.loads(listing)}


@dataclasses.dataclass
class Work:
    """What our programs did meanwhile: {name: (ns, runs)}."""
    programs: dict

    @classmethod
    def between(cls, before, after):
        """From what read_programs returned before and after."""
        return cls({name: (after[name][0] - before[name][0], after[name][1] - before[name][1])
                    for name in PROGRAMS})

    def stalls(self):
        """As the plugin's program at the end of a stall was run."""
        return self.programs["memcg_end"][1]

    def pair_ns(self, name="memcg"):
        """What the programs at begin and end of a stall take, on average."""
        return sum(self.programs[f"{name}_{edge}"][0] for edge in ("begin", "end")) / max(
            self.programs[f"{name}_end"][1], 1)

    def ratio(self):
        """The same, of what empty programs take."""
        return self.pair_ns() / self.pair_ns("empty")

    def complaints(self, told):
        """What does not add up; `told` is how many stalls the plugin told of."""
        runs = {name: runs for name, (_, runs) in self.programs.items()}
        if not told:
            return ["there were no stalls"]
        return [f"{name} was run {number} times, {told} stalls were told of"
                for name, number in runs.items() if number != told]


def median(works, value):
    """The median of what a method of Work returns."""
    return statistics.median(value(work) for work in works)


def median_ratio(works, others):
    """The median of what a pair takes in each work, of what it takes in the other
    beside it."""
    return statistics.median(one.pair_ns() / other.pair_ns()
                             for one, other in zip(works, others))


def cost_cells(works):
    """What a stall costs, for a table: ns, and times empty programs."""
    return [f"{median(works, Work.pair_ns):,.0f}", f"{median(works, Work.ratio):.1f}"]


def table(head, rows):
    """In Markdown, all columns but the first to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
