/* SPDX-License-Identifier: MIT */
#include "plugin/collectd_api.h"

#include "comm.h"
#include "name.h"

void name_of_key(const struct config *config, struct cgroup_paths *cgroups,
                 const struct reclaim_row_key *key, char name[COMM_NAME_SIZE]) {
  if (config->group_by != RECLAIM_BY_CGROUP) {
    comm_name(key->comm, key->flags & RECLAIM_ROW_KTHREAD, config->fold, name);
    return;
  }
  uint64_t id;
  memcpy(&id, key->comm, sizeof(id));
  const char *path = cgroups ? cgroup_paths_find(cgroups, id) : NULL;
  if (path)
    cgroup_name(path, name);
  else
    strcpy(name, "_gone");
}
