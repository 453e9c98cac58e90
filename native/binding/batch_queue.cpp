#include "training/batch_queue.h"

#include <unordered_map>

#include "binding/classes.h"
#include "binding/job.h"
#include "binding/values.h"
#include "error.h"

namespace cellcam::binding {

namespace {

// Loader threads load the same addon library, so they find the main thread's queues here by number.
struct Registry {
  std::mutex mutex;
  std::unordered_map<std::int64_t, std::weak_ptr<training::BatchQueue>> queues;
  std::int64_t next = 1;
};

Registry& registry() {
  static auto* all = new Registry;  // never destroyed: threads may outlive static destructors
  return *all;
}

std::int64_t enlist(const std::shared_ptr<training::BatchQueue>& queue) {
  const std::lock_guard lock(registry().mutex);
  registry().queues[registry().next] = queue;
  return registry().next++;
}

void delist(std::int64_t id) {
  const std::lock_guard lock(registry().mutex);
  registry().queues.erase(id);
}

std::shared_ptr<training::BatchQueue> find(std::int64_t id) {
  const std::lock_guard lock(registry().mutex);
  const auto found = registry().queues.find(id);
  return found == registry().queues.end() ? nullptr : found->second.lock();
}

}  // namespace

// Made by the thread that trains with { ring, slots, slotBytes, first, end }: it owns the queue and keeps the ring's memory.
// Made by a loader thread with the queue's number: a handle that may come too late, and is then finished.
class BatchQueueObject : public Napi::ObjectWrap<BatchQueueObject> {
 public:
  explicit BatchQueueObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<BatchQueueObject>(info) {
    if (info[0].IsNumber()) {
      queue_ = find(info[0].As<Napi::Number>().Int64Value());
      return;
    }
    guarded(info.Env(), [&] {
      const auto o = info[0].As<Napi::Object>();
      const auto ring = o.Get("ring").As<Napi::Object>();
      const at::Tensor memory = tensor_view(o.Get("memory"));
      if (memory.numel() < integer(o, "slots") * integer(o, "slotBytes")) throw Error("ERR_NATIVE", "the ring is too small");
      ring_ = Napi::Persistent(ring);
      queue_ = std::make_shared<training::BatchQueue>(memory.data_ptr<std::uint8_t>(), integer(o, "slots"),
                                                      integer(o, "slotBytes"), integer(o, "first"), integer(o, "end"));
      id_ = enlist(queue_);
    });
  }

  ~BatchQueueObject() override { end(); }

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "BatchQueue",
                       {InstanceAccessor<&BatchQueueObject::id>("id"), InstanceMethod("acquire", &BatchQueueObject::acquire),
                        InstanceMethod("publish", &BatchQueueObject::publish), InstanceMethod("fail", &BatchQueueObject::fail),
                        InstanceMethod("take", &BatchQueueObject::take), InstanceMethod("release", &BatchQueueObject::release),
                        InstanceMethod("close", &BatchQueueObject::close)});
  }

  std::shared_ptr<training::BatchQueue> queue() const {
    if (!queue_) throw Error("ERR_DISPOSED", "the queue was closed");
    return queue_;
  }

 private:
  bool owner() const { return id_ != 0; }

  void end() {
    if (owner() && queue_) {
      queue_->close();
      delist(id_);
    }
    queue_.reset();
  }

  Napi::Value id(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), static_cast<double>(id_)); }

  // To { batch, slot }, to null when there is nothing yet, or to undefined when all is done.
  static Napi::Value to_js(Napi::Env env, const training::BatchQueue::Acquired& acquired) {
    if (acquired.finished) return env.Undefined();
    if (!acquired.lease) return env.Null();
    auto out = Napi::Object::New(env);
    out.Set("batch", static_cast<double>(acquired.lease->batch));
    out.Set("slot", static_cast<double>(acquired.lease->slot));
    return out;
  }

  static training::Lease lease_of(const Napi::CallbackInfo& info) {
    return {info[0].As<Napi::Number>().Int64Value(), info[1].As<Napi::Number>().Int64Value()};
  }

  // (waitMs)
  Napi::Value acquire(const Napi::CallbackInfo& info) {
    if (!queue_) return info.Env().Undefined();
    return to_js(info.Env(), queue_->acquire(info[0].As<Napi::Number>().Int32Value()));
  }

  // (batch, slot)
  Napi::Value publish(const Napi::CallbackInfo& info) {
    if (queue_) queue_->publish(lease_of(info));
    return info.Env().Undefined();
  }

  Napi::Value take(const Napi::CallbackInfo& info) {
    if (!queue_) return info.Env().Undefined();
    return guarded(info.Env(), [&] { return to_js(info.Env(), queue_->try_take()); });
  }

  // (batch, slot)
  Napi::Value release(const Napi::CallbackInfo& info) {
    if (queue_) queue_->release(lease_of(info));
    return info.Env().Undefined();
  }

  // (code, message)
  Napi::Value fail(const Napi::CallbackInfo& info) {
    if (queue_) queue_->fail(std::make_exception_ptr(Error(info[0].As<Napi::String>(), info[1].As<Napi::String>())));
    return info.Env().Undefined();
  }

  // To whether loader threads still write into the ring.
  Napi::Value close(const Napi::CallbackInfo& info) {
    const auto queue = queue_;
    end();
    ring_.Reset();
    return Napi::Boolean::New(info.Env(), queue && queue->filling() > 0);
  }

  std::shared_ptr<training::BatchQueue> queue_;
  Napi::ObjectReference ring_;
  std::int64_t id_ = 0;
};

std::shared_ptr<training::BatchQueue> queue_of(const Napi::Value& value) {
  return BatchQueueObject::Unwrap(value.As<Napi::Object>())->queue();
}

void init_batch_queue(Napi::Env env, Napi::Object exports) { exports.Set("BatchQueue", BatchQueueObject::define(env)); }

}  // namespace cellcam::binding
