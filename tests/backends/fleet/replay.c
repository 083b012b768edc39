/* SPDX-License-Identifier: MIT */
/* Sends values that a collectd recorded as if many other hosts had read them,
 * over collectd's network protocol.
 *
 *   replay FILE PREFIX HOSTS SERVER PORT SECURITY INTERVAL READS [START]
 *
 * FILE has a line `READ TYPE SERIES VALUE` for each value that is not as in the
 * read before, in the order of reads, which are numbered from 0:
 * `3 DERIVE reclaim-dd/total_events-memcg 17` (record.py makes it). Hosts are
 * called PREFIX00001 and so on. SECURITY is none or encrypt; for the latter,
 * user and password are in the environment (REPLAY_USER, REPLAY_PASSWORD).
 * READS reads are sent, one each INTERVAL seconds and, as in a real fleet,
 * those of the hosts spread evenly over it; the first has the time START (since
 * the epoch; by default now). What comes after FILE's last read is as that. A
 * packet holds values of one host only.
 *
 * When all is sent, prints how much: `values N packets N bytes N`. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <collectd/network_buffer.h>
#include <gcrypt.h>

/* What collectd's network plugin fills by default. */
#define PACKET_SIZE LCC_NETWORK_BUFFER_SIZE_DEFAULT
#define PART_ENCRYPTED 0x0210
#define IV_SIZE 16
#define HASH_SIZE 20
#define LINE_SIZE 512

struct series {
  char *name;
  lcc_identifier_t identifier; /* less the host */
  int type;
  value_t value; /* in the read at hand */
  bool born;
};

struct change {
  int read;
  size_t series;
  value_t value;
};

struct recording {
  struct series *series;
  struct change *changes;
  size_t series_num, changes_num;
};

struct sender {
  lcc_network_buffer_t *buffer;
  gcry_cipher_hd_t cipher; /* NULL: as it is */
  const char *user;
  int socket;
  bool filled;
  unsigned long values, packets, bytes;
};

static void fail(const char *what, const char *why) {
  fprintf(stderr, "replay: %s: %s\n", what, why);
  exit(1);
}

static double now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void wait_until(double monotonic) {
  struct timespec until = {.tv_sec = (time_t)monotonic};
  until.tv_nsec = (long)((monotonic - (double)until.tv_sec) * 1e9);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
    ;
}

static void copy_name(char to[LCC_NAME_LEN], const char *from) {
  size_t size = strlen(from) + 1;
  if (size > LCC_NAME_LEN)
    fail("too long for a packet", from);
  memcpy(to, from, size);
}

/* `plugin-instance/type-instance`: the instance begins after the first `-`. */
static void parse_series(const char *name, lcc_identifier_t *identifier) {
  char series[LINE_SIZE];
  snprintf(series, sizeof(series), "%s", name);
  char *slash = strchr(series, '/');
  if (slash == NULL)
    fail("a series without a type", name);
  *slash = '\0';
  char *fields[2][2] = {
      {identifier->plugin, identifier->plugin_instance},
      {identifier->type, identifier->type_instance},
  };
  char *parts[2] = {series, slash + 1};
  for (int i = 0; i < 2; i++) {
    char *instance = strchr(parts[i], '-');
    if (instance != NULL)
      *instance++ = '\0';
    copy_name(fields[i][0], parts[i]);
    copy_name(fields[i][1], instance ? instance : "");
  }
}

/* Room for one more, at the end of an array of `number` elements. */
static void *grow(void *array, size_t number, size_t size) {
  if ((number & (number - 1)) == 0) /* 0 or a power of two: it is full */
    array = realloc(array, (number ? number * 2 : 1) * size);
  if (array == NULL)
    fail("recording", strerror(ENOMEM));
  return array;
}

static size_t find_series(struct recording *recording, const char *type,
                          const char *name) {
  size_t i = 0;
  for (; i < recording->series_num; i++)
    if (strcmp(recording->series[i].name, name) == 0)
      return i;
  struct series series = {.name = strdup(name), .type = LCC_TYPE_DERIVE};
  if (strcmp(type, "GAUGE") == 0)
    series.type = LCC_TYPE_GAUGE;
  else if (strcmp(type, "DERIVE") != 0)
    fail("not a type", type);
  parse_series(name, &series.identifier);
  recording->series = grow(recording->series, i, sizeof(series));
  recording->series[recording->series_num++] = series;
  return i;
}

static struct change parse_line(struct recording *recording, const char *line) {
  struct change change;
  char type[16], name[LINE_SIZE], value[64];
  if (sscanf(line, "%d %15s %511s %63s", &change.read, type, name, value) != 4)
    fail("not a recorded value", line);
  change.series = find_series(recording, type, name);
  if (recording->series[change.series].type == LCC_TYPE_GAUGE)
    change.value.gauge = strtod(value, NULL);
  else
    change.value.derive = strtoull(value, NULL, 10);
  return change;
}

static struct recording load(const char *path) {
  FILE *file = fopen(path, "r");
  if (file == NULL)
    fail(path, strerror(errno));
  struct recording recording = {0};
  char line[LINE_SIZE];
  while (fgets(line, sizeof(line), file) != NULL) {
    struct change change = parse_line(&recording, line);
    recording.changes =
        grow(recording.changes, recording.changes_num, sizeof(change));
    recording.changes[recording.changes_num++] = change;
  }
  fclose(file);
  return recording;
}

static void unload(struct recording *recording) {
  for (size_t i = 0; i < recording->series_num; i++)
    free(recording->series[i].name);
  free(recording->series);
  free(recording->changes);
}

/* Makes the series those of a read; returns the first change of the next. */
static size_t go_on(struct recording *recording, size_t change, long read) {
  for (; change < recording->changes_num &&
         recording->changes[change].read <= read;
       change++) {
    struct series *series =
        &recording->series[recording->changes[change].series];
    series->value = recording->changes[change].value;
    series->born = true;
  }
  return change;
}

static int connect_to(const char *server, const char *port) {
  struct addrinfo *address,
      hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM};
  int status = getaddrinfo(server, port, &hints, &address);
  if (status != 0)
    fail(server, gai_strerror(status));
  int connected = socket(address->ai_family, SOCK_DGRAM, 0);
  if (connected < 0 ||
      connect(connected, address->ai_addr, address->ai_addrlen) != 0)
    fail(server, strerror(errno));
  freeaddrinfo(address);
  return connected;
}

static gcry_cipher_hd_t open_cipher(const char *password) {
  gcry_cipher_hd_t cipher;
  unsigned char key[32];
  if (gcry_check_version(NULL) == NULL ||
      gcry_control(GCRYCTL_DISABLE_SECMEM) != 0 ||
      gcry_control(GCRYCTL_INITIALIZATION_FINISHED) != 0)
    fail("libgcrypt", "cannot be used");
  gcry_md_hash_buffer(GCRY_MD_SHA256, key, password, strlen(password));
  if (gcry_cipher_open(&cipher, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_OFB, 0) !=
          0 ||
      gcry_cipher_setkey(cipher, key, sizeof(key)) != 0)
    fail("AES-256", "libgcrypt does not have it");
  return cipher;
}

static struct sender open_sender(const char *server, const char *port,
                                 const char *security) {
  struct sender sender = {.user = getenv("REPLAY_USER"),
                          .socket = connect_to(server, port)};
  size_t size = PACKET_SIZE;
  if (strcmp(security, "encrypt") == 0) {
    const char *password = getenv("REPLAY_PASSWORD");
    if (sender.user == NULL || password == NULL)
      fail(security, "needs REPLAY_USER and REPLAY_PASSWORD");
    sender.cipher = open_cipher(password);
    size -= 3 * sizeof(uint16_t) + strlen(sender.user) + IV_SIZE + HASH_SIZE;
  } else if (strcmp(security, "none") != 0) {
    fail("not a level of security", security);
  }
  sender.buffer = lcc_network_buffer_create(size);
  if (sender.buffer == NULL || lcc_network_buffer_initialize(sender.buffer))
    fail("libcollectdclient", strerror(errno));
  return sender;
}

/* Puts values into an encrypted part; returns its size. The library could do
 * it, but that of collectd 5.12 takes libgcrypt's success for failure. */
static size_t encrypt(const struct sender *sender, const char *values,
                      size_t values_size, char *packet) {
  size_t user_size = strlen(sender->user);
  size_t head_size = 3 * sizeof(uint16_t) + user_size + IV_SIZE;
  size_t size = head_size + HASH_SIZE + values_size;
  uint16_t head[] = {htons(PART_ENCRYPTED), htons((uint16_t)size),
                     htons((uint16_t)user_size)};
  char *iv = packet + head_size - IV_SIZE, *hash = packet + head_size;
  memcpy(packet, head, sizeof(head));
  memcpy(packet + sizeof(head), sender->user, user_size);
  gcry_create_nonce(iv, IV_SIZE);
  gcry_md_hash_buffer(GCRY_MD_SHA1, hash, values, values_size);
  memcpy(hash + HASH_SIZE, values, values_size);
  if (gcry_cipher_setiv(sender->cipher, iv, IV_SIZE) != 0 ||
      gcry_cipher_encrypt(sender->cipher, hash, HASH_SIZE + values_size, NULL,
                          0) != 0)
    fail("a packet", "libgcrypt cannot encrypt it");
  return size;
}

static void send_packet(struct sender *sender) {
  char values[PACKET_SIZE], packet[PACKET_SIZE];
  size_t size = sizeof(values);
  if (!sender->filled)
    return;
  if (lcc_network_buffer_finalize(sender->buffer) != 0 ||
      lcc_network_buffer_get(sender->buffer, values, &size) != 0)
    fail("a packet", "libcollectdclient cannot finish it");
  if (sender->cipher != NULL)
    size = encrypt(sender, values, size, packet);
  if (send(sender->socket, sender->cipher ? packet : values, size, 0) !=
      (ssize_t)size)
    fail("send", strerror(errno));
  sender->packets++;
  sender->bytes += size;
  sender->filled = false;
  lcc_network_buffer_initialize(sender->buffer);
}

/* A value that finds the packet full goes into the next one. */
static void send_value(struct sender *sender, const lcc_value_list_t *value) {
  if (lcc_network_buffer_add_value(sender->buffer, value) != 0) {
    send_packet(sender);
    if (lcc_network_buffer_add_value(sender->buffer, value) != 0)
      fail(value->identifier.host, "a value does not fit into a packet");
  }
  sender->filled = true;
  sender->values++;
}

/* Sends the read at hand as one of the hosts. */
static void send_read(struct sender *sender, struct recording *recording,
                      const char *host, double time, double interval) {
  for (size_t i = 0; i < recording->series_num; i++) {
    struct series *series = &recording->series[i];
    if (!series->born)
      continue;
    lcc_value_list_t value = {.values = &series->value,
                              .values_types = &series->type,
                              .values_len = 1,
                              .time = time,
                              .interval = interval,
                              .identifier = series->identifier};
    snprintf(value.identifier.host, LCC_NAME_LEN, "%s", host);
    send_value(sender, &value);
  }
  send_packet(sender);
}

int main(int argc, char **argv) {
  if (argc != 9 && argc != 10) {
    fprintf(stderr, "usage: replay FILE PREFIX HOSTS SERVER PORT SECURITY "
                    "INTERVAL READS [START]\n");
    return 2;
  }
  struct recording recording = load(argv[1]);
  const char *prefix = argv[2];
  long hosts = atol(argv[3]);
  struct sender sender = open_sender(argv[4], argv[5], argv[6]);
  double interval = atof(argv[7]);
  long reads = atol(argv[8]);
  double start = argc == 10 ? atof(argv[9]) : now(CLOCK_REALTIME);

  double begin = now(CLOCK_MONOTONIC);
  size_t change = 0;
  for (long read = 0; read < reads; read++) {
    change = go_on(&recording, change, read);
    for (long i = 0; i < hosts; i++) {
      double after = ((double)read + (double)i / (double)hosts) * interval;
      char host[LCC_NAME_LEN];
      snprintf(host, sizeof(host), "%s%05ld", prefix, i + 1);
      wait_until(begin + after);
      send_read(&sender, &recording, host, start + after, interval);
    }
  }
  printf("values %lu packets %lu bytes %lu\n", sender.values, sender.packets,
         sender.bytes);
  lcc_network_buffer_destroy(sender.buffer);
  gcry_cipher_close(sender.cipher);
  close(sender.socket);
  unload(&recording);
  return 0;
}
