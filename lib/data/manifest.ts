import type { DatasetSpec } from './dataset_spec';
import { fillDurably } from './durable';
import type { FieldInfo } from './hdf5';
import { VERSION } from '../version';

/** What a dump knows of a stored field. */
export interface ManifestEntry {
  id: string;
  /** The shard that holds it. */
  shard: string;
  /** Height and width before it was resized. */
  size?: [height: number, width: number] | undefined;
  /** SHA-256 of its stored bytes, in hexadecimal. */
  sha256?: string | undefined;
}

/** Where the manifest of a dump lies. */
export function manifestPath(output: string): string {
  return `${output}.manifest.json`;
}

/**
 * Writes what a dump holds as JSON, one line an image: `{ tool, dtype, shape, channels, images: [{ id, height, width, shard, sha256 }] }`.
 * @throws CellcamError ERR_WRITE
 */
export async function writeManifest(
  output: string,
  layout: FieldInfo,
  spec: DatasetSpec,
  entries: ManifestEntry[],
): Promise<void> {
  const head = {
    tool: `cellcam ${VERSION}`,
    dtype: layout.dtype,
    shape: layout.shape,
    channels: spec.channels.map(({ name }) => name),
  };
  await fillDurably(manifestPath(output), async (file) => {
    await file.write(`${JSON.stringify(head).slice(0, -1)},"images":[`);
    for (const [i, { id, shard, size, sha256 }] of entries.entries()) {
      const line = JSON.stringify({ id, height: size?.[0], width: size?.[1], shard, sha256 });
      await file.write(`${i === 0 ? '' : ','}\n${line}`);
    }
    await file.write('\n]}\n');
  });
}
