/* SPDX-License-Identifier: MIT */
/* Stands in for collectd's daemon: records what a part hands to it. */
#ifndef RECLAIM_COLLECTD_STUB_H
#define RECLAIM_COLLECTD_STUB_H

#include "plugin/collectd_api.h"

#define STUB_MAX 1024

struct stub_value {
  char identifier[1024]; /* plugin[-instance]/type[-instance] */
  value_t value;
  cdtime_t time;
};

/* A notification: "severity time_in_s host|plugin|instance|type|instance|
 * message", and a line " name=value" for each meta data. */
extern char stub_notifications[65536];
extern size_t stub_notifications_num;

extern struct stub_value stub_values[STUB_MAX];
extern size_t stub_values_num;
extern char stub_log[65536]; /* a line each: severity, space, message */

/* Forgets all that was recorded. */
void stub_reset(void);

/* The value with this identifier, or NULL. */
const struct stub_value *stub_find(const char *identifier);

#endif
