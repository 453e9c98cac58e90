#include "binding/job.h"

#include <c10/util/Exception.h>

#include "error.h"
#include "model/cancellation.h"

namespace cellcam::binding {

namespace {

struct Described {
  std::string code, message;
};

Described describe(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    return {e.code(), e.what()};
  } catch (const model::Cancelled&) {
    return {"ERR_DISPOSED", "stopped because its owner was disposed or the process is ending"};
  } catch (const c10::Error& e) {
    return {"ERR_NATIVE", std::string("LibTorch: ") + e.what_without_backtrace()};
  } catch (const std::invalid_argument& e) {
    return {"ERR_INVALID_ARG", e.what()};
  } catch (const std::bad_alloc&) {
    return {"ERR_NATIVE", "not enough memory"};
  } catch (const std::exception& e) {
    return {"ERR_NATIVE", e.what()};
  } catch (...) {
    return {"ERR_NATIVE", "unknown C++ exception"};
  }
}

class Job : public Napi::AsyncWorker {
 public:
  Job(Napi::Env env, std::function<Result()> work, const std::vector<Napi::Object>& keep)
      : Napi::AsyncWorker(env, "cellcam"), deferred_(Napi::Promise::Deferred::New(env)), work_(std::move(work)) {
    for (const Napi::Object& value : keep) kept_.push_back(Napi::Persistent(value));
  }
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      result_ = work_();
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  void OnOK() override {
    work_ = nullptr;
    if (error_) return deferred_.Reject(to_js_error(Env(), error_).Value());
    try {
      deferred_.Resolve(result_(Env()));
    } catch (const Napi::Error& e) {
      deferred_.Reject(e.Value());
    }
  }

 private:
  Napi::Promise::Deferred deferred_;
  std::function<Result()> work_;
  Result result_;
  std::exception_ptr error_;
  std::vector<Napi::ObjectReference> kept_;
};

}  // namespace

Napi::Error to_js_error(Napi::Env env, const std::exception_ptr& error) {
  const Described described = describe(error);
  Napi::Error js = Napi::Error::New(env, described.message);
  js.Set("code", described.code);
  return js;
}

Napi::Promise run_job(Napi::Env env, std::function<Result()> work, const std::vector<Napi::Object>& keep) {
  auto* job = new Job(env, std::move(work), keep);  // deletes itself when done
  const Napi::Promise promise = job->promise();
  job->Queue();
  return promise;
}

}  // namespace cellcam::binding
