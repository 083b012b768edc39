/* SPDX-License-Identifier: MIT */
#include "tests/unit/collectd_stub.h"

struct stub_value stub_values[STUB_MAX];
size_t stub_values_num;
char stub_log[65536];
char stub_notifications[65536];
size_t stub_notifications_num;
static char host_name[] = "a-host";
char *hostname_g = host_name;

void stub_reset(void) {
  stub_values_num = 0;
  stub_log[0] = '\0';
  stub_notifications[0] = '\0';
  stub_notifications_num = 0;
}

const struct stub_value *stub_find(const char *identifier) {
  for (size_t i = 0; i < stub_values_num; i++)
    if (strcmp(stub_values[i].identifier, identifier) == 0)
      return &stub_values[i];
  return NULL;
}

int plugin_dispatch_values(value_list_t const *list) {
  if (stub_values_num == STUB_MAX || list->values_len != 1)
    abort();
  struct stub_value *stub = &stub_values[stub_values_num++];
  snprintf(stub->identifier, sizeof(stub->identifier), "%s%s%s/%s%s%s",
           list->plugin, list->plugin_instance[0] ? "-" : "",
           list->plugin_instance, list->type, list->type_instance[0] ? "-" : "",
           list->type_instance);
  stub->value = list->values[0];
  stub->time = list->time;
  return 0;
}

__attribute__((format(printf, 2, 3))) static void
append(char text[65536], const char *format, ...) {
  size_t used = strlen(text);
  va_list args;
  va_start(args, format);
  vsnprintf(text + used, 65536 - used, format, args);
  va_end(args);
}

void daemon_log(int level, const char *format, ...) {
  char message[4096];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof(message), format, args);
  va_end(args);
  append(stub_log, "%d %s\n", level, message);
}

/* Meta data in the order in which it was added. */
static int add_meta(notification_t *notification, notification_meta_t wanted,
                    const char *name) {
  notification_meta_t *meta = calloc(1, sizeof(*meta)), **end;
  *meta = wanted;
  snprintf(meta->name, sizeof(meta->name), "%s", name);
  for (end = &notification->meta; *end; end = &(*end)->next)
    continue;
  *end = meta;
  return 0;
}

int plugin_notification_meta_add_string(notification_t *notification,
                                        const char *name, const char *value) {
  return add_meta(notification,
                  (notification_meta_t){.type = NM_TYPE_STRING,
                                        .nm_value.nm_string = strdup(value)},
                  name);
}

int plugin_notification_meta_add_unsigned_int(notification_t *notification,
                                              const char *name,
                                              uint64_t value) {
  return add_meta(notification,
                  (notification_meta_t){.type = NM_TYPE_UNSIGNED_INT,
                                        .nm_value.nm_unsigned_int = value},
                  name);
}

int plugin_notification_meta_free(notification_meta_t *meta) {
  while (meta) {
    notification_meta_t *next = meta->next;
    if (meta->type == NM_TYPE_STRING)
      free((char *)meta->nm_value.nm_string);
    free(meta);
    meta = next;
  }
  return 0;
}

int plugin_dispatch_notification(const notification_t *notification) {
  stub_notifications_num++;
  append(stub_notifications, "%d %.3f %s|%s|%s|%s|%s|%s\n",
         notification->severity, CDTIME_T_TO_DOUBLE(notification->time),
         notification->host, notification->plugin,
         notification->plugin_instance, notification->type,
         notification->type_instance, notification->message);
  for (const notification_meta_t *meta = notification->meta; meta;
       meta = meta->next)
    if (meta->type == NM_TYPE_STRING)
      append(stub_notifications, " %s=%s\n", meta->name,
             meta->nm_value.nm_string);
    else
      append(stub_notifications, " %s=%llu\n", meta->name,
             (unsigned long long)meta->nm_value.nm_unsigned_int);
  return 0;
}
