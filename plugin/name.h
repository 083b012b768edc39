/* SPDX-License-Identifier: MIT */
/* From what the BPF programs tell stalls apart by to the names of series, as
 * GroupBy and Fold say. */
#ifndef RECLAIM_NAME_H
#define RECLAIM_NAME_H

#include "bpf/reclaim_shared.h"
#include "plugin/cgroup.h"
#include "plugin/config.h"

/* Writes the name of a row or event: of a comm, or of the cgroup whose id the
 * key has, "_gone" where its path is not known. `cgroups` is used with GroupBy
 * cgroup only; one thread at a time has it. */
void name_of_key(const struct config *config, struct cgroup_paths *cgroups,
                 const struct reclaim_row_key *key, char name[COMM_NAME_SIZE]);

#endif
