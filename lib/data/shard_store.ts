import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { CellcamError, codeOf } from '../errors';
import type { DatasetSpec } from './dataset_spec';
import { temporaryName, writeError } from './durable';
import { Hdf5Reader, type FieldInfo, linkTarget, ShardWriter, writeIndex } from './hdf5';
import { type ManifestEntry, manifestPath, writeManifest } from './manifest';

/** What the store knows of a field. */
type Stored = Omit<ManifestEntry, 'id'>;

/**
 * A growing set of fields: a folder of finished shards and an index of links to them. A shard appears whole or not at all, so a
 * process can be killed at any time and the next one goes on from the last finished shard.
 */
export class ShardStore {
  readonly path: string;
  readonly #layout: FieldInfo;
  readonly #shardSize: number;
  readonly #stored = new Map<string, Stored>();
  readonly #pending: [string, Stored][] = [];
  #next = 0;
  #grown = false;
  #writer: ShardWriter | undefined;

  private constructor(path: string, layout: FieldInfo, shardSize: number) {
    this.path = path;
    this.#layout = layout;
    this.#shardSize = shardSize;
  }

  /**
   * Opens what an earlier run left, or starts anew; what it left half-written is removed.
   * @throws CellcamError ERR_HDF5 for shards of another shape or type, ERR_WRITE
   */
  static async open(path: string, layout: FieldInfo, shardSize: number): Promise<ShardStore> {
    const store = new ShardStore(resolve(path), layout, shardSize);
    const names = await store.#clean();
    for (const name of names.filter((n) => /^\d{5,}\.hdf5$/.test(n)).sort()) await store.#take(name);
    return store;
  }

  /** The folder of a store's shards. */
  static folderOf(path: string): string {
    return `${resolve(path)}.shards`;
  }

  get #folder(): string {
    return ShardStore.folderOf(this.path);
  }

  /** Removes unfinished files and returns the names of the others. */
  async #clean(): Promise<string[]> {
    try {
      await rm(temporaryName(this.path), { force: true });
      const names = existsSync(this.#folder) ? await readdir(this.#folder) : [];
      const unfinished = names.filter((name) => name.endsWith('.tmp'));
      for (const name of unfinished) await rm(join(this.#folder, name));
      return names.filter((name) => !unfinished.includes(name));
    } catch (error) {
      throw writeError(this.#folder, error);
    }
  }

  async #take(name: string): Promise<void> {
    const shard = join(this.#folder, name);
    this.#next = Math.max(this.#next, Number.parseInt(name, 10) + 1);
    const reader = await openShard(shard);
    if (reader === undefined) return;
    try {
      const ids = reader.ids();
      if (ids[0] !== undefined) checkLayout(shard, reader.info(ids[0]), this.#layout);
      for (const id of ids) this.#stored.set(id, { shard });
    } finally {
      reader.close();
    }
  }

  /** Whether a finished shard holds this field. */
  has(id: string): boolean {
    return this.#stored.has(id);
  }

  /** Adds a field; it counts as stored once its shard is full or the store is closed. @throws CellcamError ERR_WRITE */
  async add(id: string, pixels: Uint8Array | Float32Array, size: [height: number, width: number]): Promise<void> {
    const writer = (this.#writer ??= await this.#createShard());
    try {
      const sha256 = await writer.add(id, pixels, this.#layout.shape, size);
      this.#pending.push([id, { shard: writer.path, size, sha256 }]);
    } catch (error) {
      this.#writer = undefined;
      this.#pending.length = 0;
      await writer.abandon();
      throw error;
    }
    if (this.#pending.length >= this.#shardSize) await this.finishShard();
  }

  async #createShard(): Promise<ShardWriter> {
    await mkdir(this.#folder, { recursive: true }).catch((error: unknown) => {
      throw writeError(this.#folder, error);
    });
    return ShardWriter.create(join(this.#folder, `${String(this.#next).padStart(5, '0')}.hdf5`));
  }

  /** Closes the shard being written, however full, so that its fields are safe. @throws CellcamError ERR_WRITE */
  async finishShard(): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    if (writer === undefined) return;
    const pending = this.#pending.splice(0);
    await writer.close();
    for (const [id, stored] of pending) this.#stored.set(id, stored);
    this.#next++;
    this.#grown = true;
  }

  /** Finishes the last shard and writes index and manifest, unless they are up to date. @throws CellcamError ERR_WRITE */
  async close(spec: DatasetSpec): Promise<void> {
    await this.finishShard();
    const ids = this.ids();
    if (ids.length === 0) return;
    if (this.#grown || !(await this.#isIndexed(ids))) await this.#writeIndex(ids);
    if (existsSync(manifestPath(this.path))) return;
    const entries = (await this.entries()).map((e) => ({ ...e, shard: linkTarget(this.path, e.shard) }));
    await writeManifest(this.path, this.#layout, spec, entries);
  }

  /** The manifest goes first: one that is there is never older than the index. */
  async #writeIndex(ids: string[]): Promise<void> {
    await rm(manifestPath(this.path), { force: true });
    await writeIndex(this.path, new Map(ids.map((id) => [id, this.#stored.get(id)!.shard])));
  }

  /** Whether the index links every id, and no other, to the shard that holds it. */
  async #isIndexed(ids: string[]): Promise<boolean> {
    if (!existsSync(this.path)) return false;
    const index = await Hdf5Reader.open(this.path);
    try {
      if (index.ids().length !== ids.length) return false;
      return ids.every((id) => index.fileOf(id) === this.#stored.get(id)!.shard);
    } finally {
      index.close();
    }
  }

  /** The ids of all stored fields, ascending. */
  ids(): string[] {
    return [...this.#stored.keys()].sort();
  }

  /** All stored fields, by ascending id; size and hash are undefined where no shard says. */
  async entries(): Promise<ManifestEntry[]> {
    const untold = [...this.#stored.values()].filter(({ size }) => size === undefined);
    for (const shard of new Set(untold.map((stored) => stored.shard))) await this.#readAttributes(shard);
    return this.ids().map((id) => ({ id, ...this.#stored.get(id)! }));
  }

  async #readAttributes(shard: string): Promise<void> {
    const reader = await Hdf5Reader.open(shard);
    try {
      for (const id of reader.ids())
        this.#stored.set(id, { shard, size: reader.originalSize(id), sha256: reader.hash(id) });
    } finally {
      reader.close();
    }
  }

  /**
   * Reads every stored field back. Shards with fields that are not as they were written are put aside as `<shard>.damaged`: all their
   * fields count as missing then.
   * @returns the damaged fields, by ascending id
   */
  async verify(onField: (id: string) => void): Promise<string[]> {
    const damaged: string[] = [];
    for (const shard of new Set([...this.#stored.values()].map((stored) => stored.shard))) {
      const found = await damagedIn(shard, onField);
      if (found.length > 0) await putAside(shard);
      damaged.push(...found);
    }
    return damaged.sort();
  }
}

/** A shard that was cut short by something else is put aside; its fields are then missing and dumped again. */
async function openShard(path: string): Promise<Hdf5Reader | undefined> {
  try {
    return await Hdf5Reader.open(path);
  } catch (error) {
    if (codeOf(error) !== 'ERR_HDF5') throw error;
    await putAside(path);
    return undefined;
  }
}

async function putAside(path: string): Promise<void> {
  await rename(path, `${path}.damaged`).catch((failed: unknown) => {
    throw writeError(path, failed);
  });
}

async function damagedIn(shard: string, onField: (id: string) => void): Promise<string[]> {
  const reader = await Hdf5Reader.open(shard);
  try {
    return reader.ids().filter((id) => {
      onField(id);
      return !reader.isIntact(id);
    });
  } finally {
    reader.close();
  }
}

function checkLayout(path: string, found: FieldInfo, wanted: FieldInfo): void {
  const text = ({ shape, dtype }: FieldInfo) => `${dtype} of shape (${shape.join(', ')})`;
  if (text(found) === text(wanted)) return;
  throw new CellcamError(
    'ERR_HDF5',
    `Expected images in ${path} as ${text(wanted)} but an earlier dump wrote ${text(found)}; remove it or choose another output`,
  );
}
