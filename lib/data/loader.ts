import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { CellcamError, codeOf, messageOf, type ErrorCode } from '../errors';
import { native, type NativeBatchQueue } from '../native';
import type { NdArray } from '../options';
import type { DatasetSpec } from './dataset_spec';
import type { StoredImages } from './pixel_files';

/** Where images come from: an HDF5 file by id, or the PNGs of a folder, resized as they are read. */
export type ImageSource = { kind: 'hdf5'; path: string } | { kind: 'png'; folder: string };

/** All that a loader worker needs to find and shape any image. */
export interface ImageIndex {
  ids: string[];
  /** For each id, its place in `sources`. */
  source: Int32Array;
  sources: ImageSource[];
  /** Which images can be read without HDF5. */
  stored: StoredImages;
  /** Side of the square images, in pixels. */
  size: number;
  spec: DatasetSpec;
}

const POLL_MS = 1;

/** One epoch's work for the workers. */
export interface EpochTask {
  queue: number;
  memory: SharedArrayBuffer;
  slotBytes: number;
  order: Int32Array;
  batch: number;
}

export type FromWorker = { kind: 'ready' } | { kind: 'failed'; code: string; message: string } | { kind: 'idle' };

/** A batch read for JavaScript. */
export interface LoadedBatch {
  batch: number;
  /** (images, size, size, channels): a view of the ring, overwritten once the next batch is asked for. */
  images: NdArray<Uint8Array>;
}

/** The batches of one epoch, on their way to the training thread. */
export interface EpochFeed {
  readonly queue: NativeBatchQueue;
  /** Ends the feed; needed after every epoch, also one that failed. */
  close(): void;
}

/**
 * Worker threads that read images into a ring of batches in shared memory, in the order asked for whatever their number.
 * Owns the threads and the ring until `close`.
 */
export class ImageLoader {
  readonly index: ImageIndex;
  readonly batch: number;
  readonly #workers: Worker[];
  #ring: SharedArrayBuffer;
  readonly #slots: number;
  readonly #slotBytes: number;
  #queue: NativeBatchQueue | undefined;
  #failure: CellcamError | undefined;

  private constructor(index: ImageIndex, batch: number, workers: Worker[]) {
    this.index = index;
    this.batch = batch;
    this.#workers = workers;
    this.#slotBytes = batch * index.size * index.size * index.spec.channels.length;
    this.#slots = workers.length + 2; // one a worker, one being read, one ready
    this.#ring = this.#newRing();
    for (const worker of workers) this.#watch(worker);
  }

  /** Starts the workers and waits until each has opened its files. */
  static async open(index: ImageIndex, o: { batch: number; workers: number }): Promise<ImageLoader> {
    const path = join(__dirname, 'loader_worker.js');
    const workers = Array.from({ length: o.workers }, () => new Worker(path, { workerData: index }));
    const loader = new ImageLoader(index, o.batch, workers);
    try {
      await Promise.all(workers.map(ready));
    } catch (error) {
      await loader.close();
      throw error;
    }
    return loader;
  }

  #newRing(): SharedArrayBuffer {
    return new SharedArrayBuffer(this.#slots * this.#slotBytes);
  }

  #watch(worker: Worker): void {
    worker.unref();
    const fail = (code: string, message: string): void => {
      this.#failure ??= new CellcamError(code as ErrorCode, message);
      this.#queue?.fail(code, message);
    };
    worker.on('message', (m: FromWorker) => {
      if (m.kind === 'failed') fail(m.code, m.message);
    });
    worker.on('error', (error) => fail(codeOf(error) ?? 'ERR_TRAINING', `a loader thread failed: ${messageOf(error)}`));
    worker.on('exit', () => fail('ERR_TRAINING', 'a loader thread ended early'));
  }

  /**
   * Begins to load batches: batch k holds images order[k·batch …] of the index.
   * @param order places in the index; @param firstBatch where an interrupted epoch goes on
   */
  begin(order: Int32Array, firstBatch = 0): EpochFeed {
    if (this.#failure) throw this.#failure;
    const queue = native(
      (a) =>
        new a.BatchQueue({
          ring: this.#ring,
          memory: { data: new Uint8Array(this.#ring), shape: [this.#ring.byteLength] },
          slots: this.#slots,
          slotBytes: this.#slotBytes,
          first: firstBatch,
          end: Math.ceil(order.length / this.batch),
        }),
    );
    this.#queue = queue;
    const task: EpochTask = {
      queue: queue.id,
      memory: this.#ring,
      slotBytes: this.#slotBytes,
      order,
      batch: this.batch,
    };
    for (const worker of this.#workers) worker.postMessage(task);
    const close = (): void => {
      // Workers in the midst of a batch of an epoch that ends early still write into its ring: the next one gets another.
      if (queue.close()) this.#ring = this.#newRing();
    };
    return { queue, close };
  }

  /**
   * The batches of one epoch for JavaScript, in order. Leaving the loop early ends the epoch.
   * @param order places in the index; @param firstBatch where to begin
   * @throws CellcamError what a worker failed with, naming the image and its file
   */
  async *read(order: Int32Array, firstBatch = 0): AsyncGenerator<LoadedBatch> {
    const feed = this.begin(order, firstBatch);
    try {
      for (;;) {
        const lease = native(() => feed.queue.take());
        if (lease === undefined) return;
        if (lease === null) {
          await setTimeout(POLL_MS);
          continue;
        }
        try {
          yield { batch: lease.batch, images: this.#images(lease, order.length) };
        } finally {
          feed.queue.release(lease.batch, lease.slot); // also when the caller leaves its loop, which closing would wait for
        }
      }
    } finally {
      feed.close();
    }
  }

  #images({ batch, slot }: { batch: number; slot: number }, total: number): NdArray<Uint8Array> {
    const { size, spec } = this.index;
    const count = Math.min(this.batch, total - batch * this.batch);
    const shape = [count, size, size, spec.channels.length];
    const length = (count * this.#slotBytes) / this.batch;
    return { data: new Uint8Array(this.#ring, slot * this.#slotBytes, length), shape };
  }

  /** Ends the workers. An epoch that is being read fails. */
  async close(): Promise<void> {
    for (const worker of this.#workers) worker.removeAllListeners();
    this.#queue?.close();
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}

function ready(worker: Worker): Promise<void> {
  return new Promise((resolve, reject) => {
    worker.on('message', (m: FromWorker) => {
      if (m.kind === 'ready') resolve();
      if (m.kind === 'failed') reject(new CellcamError(m.code as ErrorCode, m.message));
    });
    worker.once('error', reject);
    worker.once('exit', () => reject(new CellcamError('ERR_TRAINING', 'a loader thread ended as it began')));
  });
}
