// A loader thread: fills slots of the ring until the epoch's queue says that all is done.
import { parentPort, workerData } from 'node:worker_threads';
import { codeOf, messageOf } from '../errors';
import { native } from '../native';
import { FieldReader } from './field_reader';
import type { EpochTask, FromWorker, ImageIndex } from './loader';

// How long to sleep in the addon for a free slot: between sleeps the thread can be terminated.
const WAIT_MS = 50;

function send(message: FromWorker): void {
  parentPort!.postMessage(message);
}

async function fillSlot(reader: FieldReader, task: EpochTask, batch: number, slot: number): Promise<void> {
  const imageBytes = task.slotBytes / task.batch;
  const first = batch * task.batch;
  const last = Math.min(first + task.batch, task.order.length);
  for (let i = first; i < last; i++) {
    const offset = slot * task.slotBytes + (i - first) * imageBytes;
    await reader.readInto(task.order[i]!, new Uint8Array(task.memory, offset, imageBytes));
  }
}

async function work(reader: FieldReader, task: EpochTask): Promise<void> {
  const queue = native((a) => new a.BatchQueue(task.queue));
  for (;;) {
    const lease = queue.acquire(WAIT_MS);
    if (lease === undefined) return;
    if (lease === null) continue;
    await fillSlot(reader, task, lease.batch, lease.slot);
    queue.publish(lease.batch, lease.slot);
  }
}

function report(error: unknown): void {
  send({ kind: 'failed', code: codeOf(error) ?? 'ERR_TRAINING', message: messageOf(error) });
}

function main(): void {
  const reader = new FieldReader(workerData as ImageIndex);
  let previous: Promise<void> = Promise.resolve();
  parentPort!.on('message', (task: EpochTask) => {
    previous = previous.then(() => work(reader, task)).catch(report);
  });
  send({ kind: 'ready' });
}

main();
