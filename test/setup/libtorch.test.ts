import { spawn } from 'node:child_process';
import { existsSync, readdirSync, utimesSync } from 'node:fs';
import path from 'node:path';
import {
  ROOT,
  Sandbox,
  libtorch,
  libtorchFiles,
  officialArchive,
  prefixed,
  sha256,
  writeFiles,
  zipOf,
} from './fake_libtorch';

// The stand-in for Python is a shell script, and only Linux on x64 has archives of every variant.
const onLinux = process.platform === 'linux' && process.arch === 'x64' ? describe : describe.skip;

interface Found {
  dir: string;
  version: string;
  variant: string;
  source: string;
  attempts: { source: string; outcome: string }[];
}

const found = (stdout: string): Found => JSON.parse(stdout) as Found;

onLinux('scripts/libtorch.mjs', () => {
  let box: Sandbox;
  beforeEach(() => (box = new Sandbox()));
  afterEach(() => box.remove());
  const cacheName = 'libtorch-2.13.0-cpu-linux-x64';

  describe('wrong inputs', () => {
    test('LIBTORCH that is no folder is an error that names it, whatever else is there', async () => {
      writeFiles(path.join(box.cache, cacheName, 'torch'), libtorchFiles());
      const ran = await libtorch(['fetch'], box.env({ LIBTORCH: box.path('nowhere') }));
      expect(ran.code).toBe(1);
      expect(ran.stderr).toContain(`for LIBTORCH but received '${box.path('nowhere')}': no such folder`);
    });

    test.each([
      ['headers', headerless(), 'no include/torch'],
      ['a library', without('lib/libc10.so'), 'no c10 library'],
    ])('LIBTORCH without %s is an error that says so', async (_what, files, message) => {
      const ran = await libtorch(['locate'], box.env({ LIBTORCH: writeFiles(box.path('lt'), files) }));
      expect(ran.code).toBe(1);
      expect(ran.stderr).toContain(message);
    });

    test('an unknown CELLCAM_TORCH is an error that names the choices', async () => {
      const ran = await libtorch(['locate'], box.env({ CELLCAM_TORCH: 'cu99' }));
      expect(ran.code).toBe(1);
      expect(ran.stderr).toContain("Expected one of cpu, cu126, cu128, cu130 for CELLCAM_TORCH but received 'cu99'");
    });

    test('LIBTORCH_USE_PYTORCH=1 without PyTorch is an error', async () => {
      const ran = await libtorch(['fetch'], box.env({ LIBTORCH_USE_PYTORCH: '1' }));
      expect(ran.code).toBe(1);
      expect(ran.stderr).toContain('LIBTORCH_USE_PYTORCH=1 is set but no PyTorch can be used');
      expect(ran.stderr).toContain('has no torch');
    });

    test('an unknown command is an error', async () => {
      expect((await libtorch(['find'], box.env())).stderr).toContain("received 'find'");
    });

    test('no source at all: every place that was tried is listed, and nothing is left behind', async () => {
      const ran = await libtorch(['fetch'], box.env());
      expect(ran.code).toBe(1);
      expect(ran.stderr).toMatch(/LIBTORCH: not set/);
      expect(ran.stderr).toMatch(/Python's torch: .*has no torch/);
      expect(ran.stderr).toMatch(/cache: .*no such folder/);
      expect(ran.stderr).toMatch(
        /official archive \(cpu\): http:\/\/127\.0\.0\.1:9.*ECONNREFUSED|official archive \(cpu\).*bad port/,
      );
      expect(ran.stderr).toMatch(/wheel \(cpu\): ERROR: no matching distribution/);
      expect(box.cached()).toEqual([]);
    });
  });

  describe('order', () => {
    const everywhere = (): Record<string, string> => {
      const torch = writeFiles(box.path('site', 'torch'), libtorchFiles('2.12.1'));
      writeFiles(path.join(box.cache, cacheName, 'torch'), libtorchFiles());
      const LIBTORCH = writeFiles(box.path('own'), libtorchFiles('2.11.0'));
      return box.env({ LIBTORCH, PYTHON: box.python('python', { torch }) });
    };

    test('LIBTORCH wins over all', async () => {
      const own = found((await libtorch(['locate', '--json'], everywhere())).stdout);
      expect(own).toMatchObject({ dir: box.path('own'), version: '2.11.0', variant: 'cpu', source: 'LIBTORCH' });
    });

    test("then Python's torch", async () => {
      const python = found((await libtorch(['locate', '--json'], { ...everywhere(), LIBTORCH: '' })).stdout);
      expect(python).toMatchObject({ version: '2.12.1', source: "Python's torch" });
    });

    test('then the cache', async () => {
      const env = { ...everywhere(), LIBTORCH: '', PYTHON: box.python('bare') };
      const cached = found((await libtorch(['locate', '--json'], env)).stdout);
      expect(cached).toMatchObject({ dir: path.join(box.cache, cacheName, 'torch'), source: 'cache' });
      expect(cached.attempts.map(({ source }) => source)).toEqual(['LIBTORCH', "Python's torch", 'cache']);
    });

    test('LIBTORCH may contain torch/ or libtorch/', async () => {
      writeFiles(box.path('above', 'libtorch'), libtorchFiles());
      const ran = await libtorch(['locate'], box.env({ LIBTORCH: box.path('above') }));
      expect(ran.stdout.trim()).toBe(box.path('above', 'libtorch'));
    });

    test('an unsupported torch is passed over, and taken with a warning when it is asked for', async () => {
      const torch = writeFiles(box.path('site', 'torch'), libtorchFiles('2.4.1'));
      const env = box.env({ PYTHON: box.python('python', { torch }) });
      const passed = await libtorch(['locate'], env);
      expect(passed.code).toBe(1);
      expect(passed.stderr).toContain('torch 2.4.1 in');
      const taken = await libtorch(['locate'], { ...env, LIBTORCH_USE_PYTORCH: '1' });
      expect(taken.stdout.trim()).toBe(torch);
      expect(taken.stderr).toContain('warning: LibTorch 2.4.1');
    });

    test('a torch of another variant than CELLCAM_TORCH is passed over', async () => {
      const files = {
        ...libtorchFiles(),
        'lib/libtorch_cuda.so': 'cuda',
        'version.py': "__version__ = '2.13.0+cu130'\n",
      };
      const env = box.env({ PYTHON: box.python('python', { torch: writeFiles(box.path('torch'), files) }) });
      expect((await libtorch(['locate'], env)).stderr).toContain('is cu130, but CELLCAM_TORCH is cpu');
      const any = found((await libtorch(['locate', '--json'], { ...env, CELLCAM_TORCH: '' })).stdout);
      expect(any.variant).toBe('cu130');
    });

    test('CUDA libraries are named for the linker', async () => {
      const cuda = writeFiles(box.path('cuda'), { ...libtorchFiles(), 'lib/libtorch_cuda.so': '' });
      const linked = async (dir: string) =>
        (await libtorch(['libraries'], box.env({ LIBTORCH: dir }))).stdout.split('\n');
      expect(await linked(cuda)).toEqual(expect.arrayContaining(['-ltorch_cuda', '-lc10_cuda']));
      expect(await linked(writeFiles(box.path('cpu'), libtorchFiles()))).not.toContain('-ltorch_cuda');
    });
  });

  describe('fetching', () => {
    test('an archive of another hash is refused, naming both', async () => {
      const [archive, other] = [officialArchive(), 'ab'.repeat(32)];
      const url = await box.serveBytes(archive);
      const ran = await libtorch(['fetch'], box.env({ CELLCAM_LIBTORCH_URL: url, CELLCAM_LIBTORCH_SHA256: other }));
      expect(ran.code).toBe(1);
      expect(ran.stderr).toContain(`refused: expected sha256 ${other} but received ${sha256(archive)}`);
      expect(box.cached()).toEqual([]);
    });

    test.each([
      ['that was cut', (zip: Buffer) => zip.subarray(0, zip.length / 2)],
      ['with a flipped bit', (zip: Buffer) => flipped(zip, zip.indexOf('// torch.h'))],
      ['that is a web page', () => Buffer.from('<html>Sign in to this network</html>')],
      ['that holds something else', () => zipOf({ 'libtorch/readme': 'text' })],
    ])('an archive %s is never used', async (_what, damage) => {
      const url = await box.serveBytes(damage(officialArchive()));
      const ran = await libtorch(['fetch'], box.env({ CELLCAM_LIBTORCH_URL: url }));
      expect(ran.code).toBe(1);
      expect(ran.stderr).toMatch(/official archive \(cpu\): .*(cannot be unpacked|not LibTorch)/);
      expect(box.cached()).toEqual([]);
    });

    test('a connection that ends early is an error', async () => {
      const archive = officialArchive();
      const url = await box.serve((_request, response) => {
        response.writeHead(200, { 'content-length': archive.length });
        response.write(archive.subarray(0, 100), () => response.destroy());
      });
      const ran = await libtorch(['fetch'], box.env({ CELLCAM_LIBTORCH_URL: url }));
      expect(ran.code).toBe(1);
      expect(box.cached()).toEqual([]);
    });

    test('HTTP errors are told', async () => {
      const url = await box.serve((_request, response) => response.writeHead(404).end());
      const ran = await libtorch(['fetch'], box.env({ CELLCAM_LIBTORCH_URL: url }));
      expect(ran.stderr).toContain(`${url}/cpu/libtorch-shared-with-deps-2.13.0%2Bcpu.zip: HTTP 404`);
    });

    test('the archive is fetched once, without what the addon never links', async () => {
      const archive = officialArchive();
      const asked: (string | undefined)[] = [];
      const url = await box.serve((request, response) => {
        asked.push(request.url);
        response.end(archive);
      });
      const env = box.env({ CELLCAM_LIBTORCH_URL: `${url}/`, CELLCAM_LIBTORCH_SHA256: sha256(archive) });
      const first = found((await libtorch(['fetch', '--json'], env)).stdout);
      expect(first).toMatchObject({ version: '2.13.0', variant: 'cpu', source: 'official archive (cpu)' });
      expect(readdirSync(first.dir).sort()).toEqual(['build-version', 'include', 'lib', 'share']);
      expect(readdirSync(path.join(first.dir, 'lib')).sort()).toEqual(['libc10.so', 'libtorch.so', 'libtorch_cpu.so']);
      expect(found((await libtorch(['fetch', '--json'], env)).stdout).source).toBe('cache');
      expect(asked).toEqual(['/cpu/libtorch-shared-with-deps-2.13.0%2Bcpu.zip']);
      expect(box.cached()).toEqual([cacheName]);
    });

    test('an archive with an entry that points out of the folder is refused', async () => {
      const evil = { ...prefixed('libtorch', libtorchFiles()), 'libtorch/lib/../../../../evil': 'evil' };
      const url = await box.serveBytes(zipOf(evil));
      const ran = await libtorch(['fetch'], box.env({ CELLCAM_LIBTORCH_URL: url }));
      expect(ran.stderr).toContain('cannot be unpacked: invalid relative path');
      expect(box.cached()).toEqual([]);
      expect(existsSync(box.path('evil'))).toBe(false);
    });

    test('two at once do not destroy each other', async () => {
      const url = await box.serveBytes(officialArchive());
      const env = box.env({ CELLCAM_LIBTORCH_URL: url });
      const both = await Promise.all([1, 2, 3].map(async () => await libtorch(['fetch'], env)));
      const dir = path.join(box.cache, cacheName, 'torch');
      expect(both.map(({ code, stdout }) => [code, stdout.trim()])).toEqual([1, 2, 3].map(() => [0, dir]));
      expect(box.cached()).toEqual([cacheName]);
    });

    test('a fetch that is killed leaves nothing that is used, and its remains go after a day', async () => {
      const archive = officialArchive();
      let started = (): void => undefined;
      const begun = new Promise<void>((resolve) => (started = resolve));
      const stalled = await box.serve((_request, response) => {
        response.writeHead(200, { 'content-length': archive.length });
        response.write(archive.subarray(0, 100), started);
      });
      const script = path.join(ROOT, 'scripts', 'libtorch.mjs');
      const child = spawn(process.execPath, [script, 'fetch'], { env: box.env({ CELLCAM_LIBTORCH_URL: stalled }) });
      await begun;
      const ended = new Promise((resolve) => child.on('close', resolve));
      child.kill('SIGKILL');
      await ended;
      expect(box.cached()).toEqual([expect.stringMatching(/^\.fetching-/)]);
      expect((await libtorch(['locate'], box.env())).code).toBe(1);
      const old = Date.now() / 1000 - 2 * 24 * 3600;
      for (const name of box.cached()) utimesSync(path.join(box.cache, name), old, old);
      const url = await box.serveBytes(archive);
      expect((await libtorch(['fetch'], box.env({ CELLCAM_LIBTORCH_URL: url }))).code).toBe(0);
      expect(box.cached()).toEqual([cacheName]);
    });
  });

  describe('the wheel', () => {
    /** pip download that "brings" the given wheels: -d names the folder. */
    const pip = (wheels: Record<string, Buffer>): string => {
      const shelf = box.path('shelf');
      writeFiles(shelf, wheels);
      return `echo "$@" > '${box.path('asked')}'\nwhile [ "$1" != -d ]; do shift; done\nmkdir -p "$2" && cp '${shelf}'/* "$2"`;
    };
    const wheelOf = (more: Record<string, string> = {}): Buffer =>
      zipOf({ ...prefixed('torch', libtorchFiles()), 'torch/nn/modules.py': 'python', ...more });

    test('is taken where no archive can be had', async () => {
      const PYTHON = box.python('python', { pip: pip({ 'torch-2.13.0+cpu-cp312-cp312-linux_x86_64.whl': wheelOf() }) });
      const got = found((await libtorch(['fetch', '--json'], box.env({ PYTHON }))).stdout);
      expect(got).toMatchObject({ source: 'wheel (cpu)', variant: 'cpu' });
      expect(readdirSync(got.dir).sort()).toEqual(['include', 'lib', 'share']);
    });

    test('whose hash is known is refused if it has another', async () => {
      const name = 'torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl';
      const ran = await libtorch(
        ['fetch'],
        box.env({ PYTHON: box.python('python', { pip: pip({ [name]: wheelOf() }) }) }),
      );
      expect(ran.code).toBe(1);
      expect(ran.stderr).toMatch(/wheel \(cpu\): .*refused: expected sha256 6746dbcb/);
    });

    test('of a CUDA variant lies beside the NVIDIA libraries that it loads', async () => {
      const cuda = wheelOf({
        'torch/lib/libtorch_cuda.so': 'cuda',
        'torch/version.py': "__version__ = '2.13.0+cu130'",
      });
      const cudnn = zipOf({ 'nvidia/cudnn/lib/libcudnn.so.9': 'cudnn', 'nvidia/cudnn/include/cudnn.h': 'header' });
      const wheels = {
        'torch-2.13.0+cu130-cp312.whl': cuda,
        'nvidia_cudnn_cu13-9.1-py3.whl': cudnn,
        'sympy-1.whl': wheelOf(),
      };
      const env = box.env({ PYTHON: box.python('python', { pip: pip(wheels) }), CELLCAM_TORCH: 'cu130' });
      const got = found((await libtorch(['fetch', '--json'], env)).stdout);
      expect(got.variant).toBe('cu130');
      expect(existsSync(path.join(got.dir, '..', 'nvidia', 'cudnn', 'lib', 'libcudnn.so.9'))).toBe(true);
    });
  });
});

function without(name: string): Record<string, string> {
  return Object.fromEntries(Object.entries(libtorchFiles()).filter(([each]) => each !== name));
}

function headerless(): Record<string, string> {
  return without('include/torch/csrc/api/include/torch/torch.h');
}

function flipped(zip: Buffer, at: number): Buffer {
  const copy = Buffer.from(zip);
  copy.writeUInt8(copy.readUInt8(at) ^ 1, at);
  return copy;
}
