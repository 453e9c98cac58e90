#pragma once
#include <napi.h>

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace cellcam::binding {

// Makes the JavaScript value of a result; runs on the JavaScript thread.
using Result = std::function<Napi::Value(Napi::Env)>;

// Whatever was thrown, as a JavaScript error with `code`; LibTorch errors without their C++ backtrace.
Napi::Error to_js_error(Napi::Env env, const std::exception_ptr& error);

// Runs f and turns any C++ exception into a thrown JavaScript error.
template <typename F>
auto guarded(Napi::Env env, F&& f) {
  try {
    return f();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(env, std::current_exception());
  }
}

// A short job: `work` runs on a libuv thread and must not touch JavaScript; the result it returns is made on the JavaScript thread.
// `keep` holds JavaScript values whose memory the work reads.
Napi::Promise run_job(Napi::Env env, std::function<Result()> work, const std::vector<Napi::Object>& keep = {});

}  // namespace cellcam::binding
