/* SPDX-License-Identifier: MIT */
#include "tests/unit/collectd_stub.h"

struct stub_value stub_values[STUB_MAX];
size_t stub_values_num;
char stub_log[65536];

void stub_reset(void) {
  stub_values_num = 0;
  stub_log[0] = '\0';
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

void daemon_log(int level, const char *format, ...) {
  size_t used = strlen(stub_log);
  va_list args;
  va_start(args, format);
  used += snprintf(stub_log + used, sizeof(stub_log) - used, "%d ", level);
  used += vsnprintf(stub_log + used, sizeof(stub_log) - used, format, args);
  snprintf(stub_log + used, sizeof(stub_log) - used, "\n");
  va_end(args);
}
