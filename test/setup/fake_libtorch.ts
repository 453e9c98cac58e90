import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { crc32 } from 'node:zlib';

export const ROOT = path.resolve(__dirname, '..', '..');

const HEADER = 'include/torch/csrc/api/include/torch/torch.h';
const EXTENSION = process.platform === 'darwin' ? 'dylib' : 'so';

/** The files, relative to LibTorch's folder, of the smallest folder that is taken for LibTorch. */
export function libtorchFiles(version = '2.13.0'): Record<string, string> {
  const parts = version.split('.');
  const defines = ['MAJOR', 'MINOR', 'PATCH'].map((part, i) => `#define TORCH_VERSION_${part} ${parts[i]}\n`);
  const libraries = ['torch', 'torch_cpu', 'c10'].map((name): [string, string] => [
    `lib/lib${name}.${EXTENSION}`,
    name,
  ]);
  return {
    [HEADER]: '// torch.h\n',
    'include/torch/headeronly/version.h': defines.join(''),
    'share/cmake/Torch/TorchConfig.cmake': '# cmake\n',
    ...Object.fromEntries(libraries),
  };
}

export function writeFiles(folder: string, files: Record<string, string | Buffer>): string {
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(folder, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, content);
  }
  return folder;
}

export function prefixed(prefix: string, files: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(files).map(([name, text]) => [`${prefix}/${name}`, text]));
}

/** A zip of stored (uncompressed) files. */
export function zipOf(files: Record<string, string>): Buffer {
  const bodies: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, text] of Object.entries(files)) {
    const [encoded, data] = [Buffer.from(name), Buffer.from(text)];
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    fields.writeUInt32LE(crc32(data), 10);
    fields.writeUInt32LE(data.length, 14);
    fields.writeUInt32LE(data.length, 18);
    fields.writeUInt16LE(encoded.length, 22);
    bodies.push(Buffer.from('PK\x03\x04'), fields, encoded, data);
    const place = Buffer.alloc(14);
    place.writeUInt32LE(offset, 10);
    directory.push(Buffer.from('PK\x01\x02\x14\x00', 'latin1'), fields, place, encoded);
    offset += 30 + encoded.length + data.length;
  }
  const listing = Buffer.concat(directory);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(Object.keys(files).length, 4);
  end.writeUInt16LE(Object.keys(files).length, 6);
  end.writeUInt32LE(listing.length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...bodies, listing, Buffer.from('PK\x05\x06'), end]);
}

export function sha256(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

/** An archive as LibTorch's: what is needed, and what is to be left out. */
export function officialArchive(version?: string): Buffer {
  return zipOf({
    ...prefixed('libtorch', libtorchFiles(version)),
    'libtorch/build-version': `${version ?? '2.13.0'}+cpu`,
    'libtorch/bin/protoc': 'program',
    'libtorch/lib/libtorch_python.so': 'python',
    'libtorch/lib/libprotobuf.a': 'static',
    'libtorch/test/test_api': 'tests',
  });
}

export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Scratch folders, servers and an environment that sees nothing of this machine's Python, caches or drivers. */
export class Sandbox {
  readonly folder = mkdtempSync(path.join(os.tmpdir(), 'cellcam-setup-'));
  readonly cache = path.join(this.folder, 'cache');
  private servers: Server[] = [];

  path(...names: string[]): string {
    return path.join(this.folder, ...names);
  }

  /** A program that stands in for Python: `torch` is where it finds that package, `pip` what runs for pip download. */
  python(name: string, { torch = '', pip = 'echo "ERROR: no matching distribution" >&2; exit 1' } = {}): string {
    const file = this.path(name);
    const script = `#!/bin/sh\nif [ "$1" = -c ]; then echo "${torch}"; exit 0; fi\n${pip}\n`;
    writeFileSync(file, script);
    chmodSync(file, 0o755);
    return file;
  }

  env(more: Record<string, string> = {}): Record<string, string> {
    return {
      PATH: process.env['PATH'] ?? '',
      HOME: this.folder,
      CELLCAM_CACHE: this.cache,
      CELLCAM_TORCH: 'cpu',
      CELLCAM_LIBTORCH_URL: 'http://127.0.0.1:9/nothing-listens-here',
      PYTHON: this.python('python-without-torch'),
      ...more,
    };
  }

  /** Serves on this machine; returns the base URL. */
  async serve(answer: RequestListener): Promise<string> {
    const server = createServer(answer);
    this.servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  async serveBytes(bytes: Buffer): Promise<string> {
    return await this.serve((_request, response) => response.end(bytes));
  }

  /** What lies in the cache folder. */
  cached(): string[] {
    try {
      return readdirSync(this.cache);
    } catch {
      return [];
    }
  }

  remove(): void {
    for (const server of this.servers) {
      server.closeAllConnections();
      server.close();
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Runs one of the package's scripts to its end. */
export async function runNode(args: string[], env: Record<string, string>, cwd = ROOT): Promise<Outcome> {
  return await new Promise((resolve) => {
    const child = execFile(process.execPath, args, { env, cwd, maxBuffer: 1 << 26 }, (_error, stdout, stderr) => {
      resolve({ code: child.exitCode, stdout, stderr });
    });
  });
}

/** `node scripts/libtorch.mjs …` */
export async function libtorch(args: string[], env: Record<string, string>): Promise<Outcome> {
  return await runNode([path.join(ROOT, 'scripts', 'libtorch.mjs'), ...args], env);
}
