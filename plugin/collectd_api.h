/* SPDX-License-Identifier: MIT */
/* collectd's plugin interface, from a source tree (--with-collectd-src) or from
 * installed headers. Never included beside reclaim_config.h: both define
 * PACKAGE_NAME. */
#ifndef RECLAIM_COLLECTD_API_H
#define RECLAIM_COLLECTD_API_H

#ifdef RECLAIM_COLLECTD_SOURCE_TREE
#include "collectd.h"

#include "plugin.h"
#include "utils_complain.h"
#else
#include "collectd/core/daemon/collectd.h"

#include "collectd/core/daemon/plugin.h"
#include "collectd/core/daemon/utils_complain.h"
#endif

/* Registration, identifiers and log lines all use this one name. */
#define RECLAIM_PLUGIN "reclaim"

#endif
