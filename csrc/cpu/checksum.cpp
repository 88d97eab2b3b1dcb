// The checksum of a block of memory: a keyed sum of products (NH, Black et al. 1999). The key of a word depends on its
// position, so exchanging two words changes the checksum too.
#include <cstring>

#include "gnna/cpu_api.h"

// Compiles a function for several instruction sets. The dynamic loader selects the version for the processor.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define GNNA_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef GNNA_CLONES
#define GNNA_CLONES
#endif

namespace gnna::cpu {
namespace {

constexpr int kLanes = 16;
constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;

}  // namespace

GNNA_CLONES uint64_t checksum(const void* data, size_t bytes) {
  const char* const from = static_cast<const char*>(data);
  uint64_t sum[kLanes] = {}, key[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) key[lane] = kStep * static_cast<uint64_t>(2 * lane + 1);
  constexpr size_t kStride = kLanes * sizeof(uint64_t);
  const auto add = [&](const char* at) {
    uint64_t word[kLanes];
    std::memcpy(word, at, kStride);
    for (int lane = 0; lane < kLanes; ++lane) {
      const uint64_t keyed = word[lane] + key[lane];
      sum[lane] += (keyed & 0xffffffffu) * (keyed >> 32);
      key[lane] += kStep;
    }
  };
  size_t at = 0;
  for (; at + kStride <= bytes; at += kStride) add(from + at);
  if (at < bytes) {
    char rest[kStride] = {};
    std::memcpy(rest, from + at, bytes - at);
    add(rest);
  }
  uint64_t result = bytes;
  for (int lane = 0; lane < kLanes; ++lane) result = (result ^ sum[lane]) * kStep + (result >> 29);
  return result;
}

}  // namespace gnna::cpu
