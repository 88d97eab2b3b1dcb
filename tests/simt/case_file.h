// The files through which tests/simt_driver.py passes cases to the driver and reads the results. A case is a line "case
// <operation> <numbers> <arrays>", a line "<name> <value>" for each number, and for each array a line "<name> <bytes>
// <shift>" followed by its bytes. Every array is allocated on its own and ends where its allocation ends, so that
// AddressSanitizer sees an access past its end. Allocations are aligned to 256 bytes, as on a device, and `shift` moves
// the start of an array off that alignment.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <istream>
#include <map>
#include <ostream>
#include <string>

#include "simt.h"

namespace simt {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes, size_t shift = 0) : bytes_(bytes), shift_(shift) {
    if (posix_memalign(reinterpret_cast<void**>(&memory_), 256, bytes + shift) != 0) fail("out of memory");
    std::memset(memory_, kUnwritten, bytes + shift);
  }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    std::swap(shift_, other.shift_);
    return *this;
  }
  ~Buffer() { std::free(memory_); }

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(memory_ + shift_);
  }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr int kUnwritten = 0xa5;  // out of range as an index, and unlike any result as a number
  unsigned char* memory_ = nullptr;
  size_t bytes_ = 0, shift_ = 0;
};

using Results = std::map<std::string, Buffer>;

struct Case {
  std::string operation;
  std::map<std::string, int64_t> numbers;
  std::map<std::string, Buffer> arrays;

  bool read(std::istream& in) {
    std::string word;
    size_t number_count = 0, array_count = 0;
    if (!(in >> word >> operation >> number_count >> array_count)) return false;
    for (size_t i = 0; i < number_count; ++i) {
      in >> word;
      in >> numbers[word];
    }
    for (size_t i = 0; i < array_count; ++i) {
      size_t bytes = 0, shift = 0;
      in >> word >> bytes >> shift;
      in.get();
      in.read((arrays[word] = Buffer(bytes, shift)).as<char>(), static_cast<std::streamsize>(bytes));
    }
    if (!in) fail("the file of cases ends too early");
    return true;
  }

  int64_t number(const std::string& name) const {
    const auto found = numbers.find(name);
    if (found == numbers.end()) fail("%s lacks the number %s", operation.c_str(), name.c_str());
    return found->second;
  }
  // nullptr if the case has no such array.
  template <typename T>
  T* array(const std::string& name) const {
    const auto found = arrays.find(name);
    return found == arrays.end() ? nullptr : found->second.as<T>();
  }
  size_t bytes(const std::string& name) const { return arrays.count(name) ? arrays.at(name).bytes() : 0; }
};

inline void write(std::ostream& out, const Results& results) {
  out << "result " << results.size() << '\n';
  for (const auto& [name, buffer] : results) {
    out << name << ' ' << buffer.bytes() << '\n';
    out.write(buffer.as<char>(), static_cast<std::streamsize>(buffer.bytes())) << '\n';
  }
  out.flush();
}

}  // namespace simt
