// Counts and times a plan's calls.
#include "plan/usage.h"

#include <algorithm>

namespace gnna {

constexpr int64_t kWarmUp = 3;  // first calls of a kind that are not timed

Usage::Record* Usage::find(Kind kind) {
  for (int i = 0; i < kinds_; ++i)
    if (records_[i].kind == kind) return &records_[i];
  if (kinds_ == kKinds) return nullptr;
  records_[kinds_].kind = kind;
  return &records_[kinds_++];
}

int64_t Usage::count(Kind kind) {
  calls_.fetch_add(1, std::memory_order_relaxed);
  if (closed_.load(std::memory_order_relaxed)) return 0;
  const std::lock_guard<std::mutex> lock(mutex_);
  Record* record = find(kind);
  return record && ++record->calls > kWarmUp ? record->calls : 0;
}

void Usage::time(Kind kind, double seconds) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (Record* record = find(kind)) record->samples[record->timed++ % kSamples] = static_cast<float>(seconds);
}

Usage::Summary Usage::summary() const {
  Summary result;
  const std::lock_guard<std::mutex> lock(mutex_);
  result.kinds = kinds_;
  result.calls = calls();
  double longest = 0;
  for (int i = 0; i < kinds_; ++i) {
    const Record& record = records_[i];
    auto samples = record.samples;
    const auto count = static_cast<int>(std::min<int64_t>(record.timed, kSamples));
    std::nth_element(samples.begin(), samples.begin() + count / 4, samples.begin() + count);
    const double typical = count > 0 ? samples[count / 4] : 0;
    result.lines[i] = {record.kind, record.calls, count, typical};
    const double seconds = typical * static_cast<double>(record.calls);
    result.seconds += seconds;
    if (seconds >= longest) {
      longest = seconds;
      result.longest_bytes = record.kind.row_bytes;
    }
  }
  return result;
}

Usage::Comparison Usage::compare(const Summary& before, const Summary& after, int least) {
  Comparison result;
  double calls = 0;
  for (int b = 0; b < before.kinds; ++b)
    for (int a = 0; a < after.kinds; ++a) {
      const auto &x = before.lines[b], &y = after.lines[a];
      if (!(x.kind == y.kind) || x.samples < least || y.samples < least) continue;
      ++result.kinds;
      calls += static_cast<double>(x.calls);
      result.before += static_cast<double>(x.calls) * x.typical;
      result.after += static_cast<double>(x.calls) * y.typical;
    }
  if (result.kinds > 0) {
    result.before /= calls;
    result.after /= calls;
  }
  return result;
}

}  // namespace gnna
