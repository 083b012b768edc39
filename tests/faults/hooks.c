/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hooks.h"

#define SLOTS 1024  /* of all objects; as in the assembly */
#define SITES 16384 /* a power of two */
#define OBJECTS 4
#define FAULTS 4

static struct {
  const char *function;
  uintptr_t real;
  unsigned object;
} slots[SLOTS];
static unsigned slots_num;

static uintptr_t bases[OBJECTS];
static unsigned objects_num;

/* In the place that the key hashes to, or behind it. Tail calls from one
 * function to several have one address: the key is that, and the slot. */
static struct {
  _Atomic uint64_t key;
  _Atomic uint64_t calls;
} sites[SITES];

static struct hook_fault faults[FAULTS];
static unsigned faults_num;
static _Atomic uint64_t fired;

/* What the assembly below saved: arguments, and the register of the result. */
struct registers {
  uintptr_t argument[6];
  uintptr_t result;
};

uintptr_t hook_decide(struct registers *registers, unsigned slot,
                      uintptr_t caller);
extern const char hook_entries[], hook_return[];

/* An entry is 16 bytes: it pushes the number of its slot. The rest saves what a
 * call passes in registers, asks hook_decide where to go, and goes there as if
 * nothing had been in between. */
__asm__(".text\n"
        ".balign 16\n"
        "hook_entries:\n"
        ".set slot, 0\n"
        ".rept 1024\n"
        "  .balign 16\n"
        "  pushq $slot\n"
        "  jmp hook_common\n"
        "  .set slot, slot + 1\n"
        ".endr\n"
        "hook_common:\n"
        "  pushq %rbp\n"
        "  movq %rsp, %rbp\n"
        "  pushq %rax\n"
        "  pushq %r9\n"
        "  pushq %r8\n"
        "  pushq %rcx\n"
        "  pushq %rdx\n"
        "  pushq %rsi\n"
        "  pushq %rdi\n"
        "  leaq -56(%rbp), %rdi\n"
        "  movl 8(%rbp), %esi\n"
        "  movq 16(%rbp), %rdx\n"
        "  subq $128, %rsp\n"
        "  andq $-16, %rsp\n"
        "  movups %xmm0, (%rsp)\n"
        "  movups %xmm1, 16(%rsp)\n"
        "  movups %xmm2, 32(%rsp)\n"
        "  movups %xmm3, 48(%rsp)\n"
        "  movups %xmm4, 64(%rsp)\n"
        "  movups %xmm5, 80(%rsp)\n"
        "  movups %xmm6, 96(%rsp)\n"
        "  movups %xmm7, 112(%rsp)\n"
        "  call hook_decide\n"
        "  movq %rax, %r11\n"
        "  movups (%rsp), %xmm0\n"
        "  movups 16(%rsp), %xmm1\n"
        "  movups 32(%rsp), %xmm2\n"
        "  movups 48(%rsp), %xmm3\n"
        "  movups 64(%rsp), %xmm4\n"
        "  movups 80(%rsp), %xmm5\n"
        "  movups 96(%rsp), %xmm6\n"
        "  movups 112(%rsp), %xmm7\n"
        "  leaq -56(%rbp), %rsp\n"
        "  popq %rdi\n"
        "  popq %rsi\n"
        "  popq %rdx\n"
        "  popq %rcx\n"
        "  popq %r8\n"
        "  popq %r9\n"
        "  popq %rax\n"
        "  popq %rbp\n"
        "  addq $8, %rsp\n"
        "  jmp *%r11\n"
        "hook_return:\n"
        "  ret\n");

static size_t find_site(unsigned slot, uintptr_t caller) {
  uint64_t key = (uint64_t)caller * SLOTS + slot;
  size_t place = (key * 0x9e3779b97f4a7c15ULL) >> 50;
  for (;; place = (place + 1) & (SITES - 1)) {
    uint64_t found = 0;
    if (atomic_compare_exchange_strong(&sites[place].key, &found, key) ||
        found == key)
      return place;
  }
}

static const struct hook_fault *find_fault(unsigned object, uintptr_t caller,
                                           uint64_t call) {
  for (unsigned i = 0; i < faults_num; i++) {
    const struct hook_fault *fault = &faults[i];
    if (fault->object == object && fault->address + bases[object] == caller &&
        call >= fault->first && call <= fault->last)
      return fault;
  }
  return NULL;
}

static uintptr_t fail(const struct hook_fault *fault,
                      struct registers *registers, uintptr_t real) {
  uintptr_t *argument = registers->argument;
  if (fault->mode != HOOK_PRETEND)
    atomic_fetch_add(&fired, 1);
  if (fault->mode == HOOK_SHORT) {
    argument[2] = 1;
    return real;
  }
  if (fault->mode == HOOK_AFTER)
    ((long (*)(uintptr_t, uintptr_t, uintptr_t))real)(argument[0], argument[1],
                                                      argument[2]);
  if (fault->mode == HOOK_NONE)
    *(uint32_t *)argument[5] = 0;
  if (fault->error != 0)
    errno = fault->error;
  registers->result = (uintptr_t)fault->result;
  if (fault->mode == HOOK_PRETEND)
    registers->result = (uintptr_t)open("/dev/null", O_RDONLY | O_CLOEXEC);
  return (uintptr_t)hook_return;
}

/* Returns where to go: to the function, or back. */
uintptr_t hook_decide(struct registers *registers, unsigned slot,
                      uintptr_t caller) {
  unsigned object = slots[slot].object;
  uintptr_t real = slots[slot].real;
  size_t site = find_site(slot, caller);
  uint64_t call = atomic_fetch_add(&sites[site].calls, 1) + 1;
  const struct hook_fault *fault = find_fault(object, caller, call);
  return fault ? fail(fault, registers, real) : real;
}

static bool is_among(const char *function, const char *functions) {
  char wanted[128];
  snprintf(wanted, sizeof(wanted), ",%s,", function);
  return strstr(functions, wanted) != NULL;
}

/* Slots may be read-only since they were filled in. */
static void replace(uintptr_t *slot, uintptr_t target) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  void *begin = (void *)((uintptr_t)slot & ~(page - 1));
  if (mprotect(begin, page, PROT_READ | PROT_WRITE) != 0)
    abort();
  *slot = target;
}

static void hook_slot(const char *function, uintptr_t *slot) {
  if (slots_num == SLOTS)
    abort();
  slots[slots_num].function = function;
  slots[slots_num].real = *slot;
  slots[slots_num].object = objects_num;
  replace(slot, (uintptr_t)&hook_entries[16 * slots_num++]);
}

static void hook_object(const struct link_map *map, const char *functions) {
  const ElfW(Sym) *symbols = NULL;
  const char *strings = NULL;
  const ElfW(Rela) *jumps = NULL;
  size_t bytes = 0;
  for (const ElfW(Dyn) *dyn = map->l_ld; dyn->d_tag != DT_NULL; dyn++) {
    if (dyn->d_tag == DT_SYMTAB)
      symbols = (const void *)dyn->d_un.d_ptr;
    else if (dyn->d_tag == DT_STRTAB)
      strings = (const void *)dyn->d_un.d_ptr;
    else if (dyn->d_tag == DT_JMPREL)
      jumps = (const void *)dyn->d_un.d_ptr;
    else if (dyn->d_tag == DT_PLTRELSZ)
      bytes = dyn->d_un.d_val;
  }
  for (size_t i = 0; i < bytes / sizeof(*jumps); i++) {
    const char *function =
        strings + symbols[ELF64_R_SYM(jumps[i].r_info)].st_name;
    if (is_among(function, functions))
      hook_slot(function, (uintptr_t *)(map->l_addr + jumps[i].r_offset));
  }
}

int hooks_install(const char *object, const char *functions) {
  struct link_map *map = _r_debug.r_map;
  while (map && !strstr(map->l_name, object))
    map = map->l_next;
  if (!map || objects_num == OBJECTS)
    return -1;
  bases[objects_num] = map->l_addr;
  hook_object(map, functions);
  return (int)objects_num++;
}

void hooks_arm(const struct hook_fault *wanted, unsigned num) {
  faults_num = 0;
  for (size_t i = 0; i < SITES; i++)
    sites[i].calls = 0;
  fired = 0;
  memcpy(faults, wanted, num * sizeof(*wanted));
  faults_num = num;
}

uint64_t hooks_fired(void) { return fired; }

void hooks_print(void) {
  for (size_t i = 0; i < SITES; i++) {
    unsigned slot = sites[i].key % SLOTS, object = slots[slot].object;
    if (sites[i].calls > 0)
      printf("site %u %" PRIxPTR " %s %" PRIu64 "\n", object,
             (uintptr_t)(sites[i].key / SLOTS) - bases[object],
             slots[slot].function, sites[i].calls);
  }
}
