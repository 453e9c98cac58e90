// ImageNet weights from a hub: a real HTTP server on this machine that serves, breaks off, and lies.
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PuzzleCam, readWeights, writeWeights, type Weights } from '../../dist';
import { fetchFromHub } from '../../dist/data/weights/hub';
import { cellcam } from '../cli/run_cellcam';
import { makeSmallSet } from '../training/small_set';

const ID = 'timm/resnet18.a1_in1k';
const COMMIT = 'c'.repeat(40);

let folder: string;
let content: Buffer;
let sha256: string;
let server: Server;
let asked: { method: string; url: string; range?: string; token?: string }[] = [];
/** How the server behaves: bytes after which each of the next answers breaks off, and the hash that it tells. */
let breaks: number[] = [];
let told: string;

function answer(request: IncomingMessage, response: ServerResponse): void {
  const { range, authorization } = request.headers;
  asked.push({ method: request.method!, url: request.url!, range, token: authorization });
  if (request.url!.includes('/private/')) return void response.writeHead(401).end();
  if (request.url!.startsWith(`/${ID}/`)) {
    response.setHeader('x-repo-commit', COMMIT);
    response.setHeader('x-linked-etag', `"${told}"`);
    response.setHeader('x-linked-size', content.length);
    return void response.writeHead(302, { location: '/store/blob' }).end();
  }
  if (request.url !== '/store/blob') return void response.writeHead(404).end();
  const from = Number(/bytes=(\d+)-/.exec(range ?? '')?.[1] ?? 0);
  const rest = content.subarray(from);
  response.writeHead(from > 0 ? 206 : 200, { 'content-length': rest.length });
  const most = breaks.shift();
  if (most === undefined) return void response.end(rest);
  response.write(rest.subarray(0, most), () => response.socket!.destroy());
}

/** A timm file of resnet18 for RGB, with its ImageNet classifier. */
async function timmWeights(): Promise<Weights> {
  using model = await PuzzleCam.create({ backbone: 'resnet18', inChannels: 3, device: 'cpu', seed: 3 });
  const features = Object.entries(model.weights()).filter(([name]) => name.startsWith('cnn1.mfeatures.'));
  const named = features.map(([name, tensor]) => [name.replace('cnn1.mfeatures.', ''), tensor] as const);
  const fc = { dtype: 'float32' as const, shape: [1000, 512], data: new Float32Array(512000) };
  return {
    ...Object.fromEntries(named),
    'fc.weight': fc,
    'fc.bias': { ...fc, shape: [1000], data: new Float32Array(1000) },
  };
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cellcam-hub-'));
  const path = join(folder, 'timm.safetensors');
  await writeWeights(path, await timmWeights());
  content = readFileSync(path);
  sha256 = createHash('sha256').update(content).digest('hex');
  server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterAll(() => {
  server.close();
  server.closeAllConnections();
  rmSync(folder, { recursive: true });
});

let home: string;
let env: NodeJS.ProcessEnv;
beforeEach(() => {
  home = mkdtempSync(join(folder, 'home-'));
  env = { HF_HOME: home, HF_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` };
  [asked, breaks, told] = [[], [], sha256];
});

const repository = (...parts: string[]): string => join(home, 'hub', 'models--timm--resnet18.a1_in1k', ...parts);

describe('fetching', () => {
  test("lays the cache out as the hub's own tools do, and asks once", async () => {
    const path = await fetchFromHub(ID, { env: { ...env, HF_TOKEN: 'secret' } });
    expect(path).toBe(repository('snapshots', COMMIT, 'model.safetensors'));
    expect(readFileSync(path).equals(content)).toBe(true);
    expect(readlinkSync(path)).toBe(join('..', '..', 'blobs', sha256));
    expect(readFileSync(repository('refs', 'main'), 'utf8')).toBe(COMMIT);
    expect(asked[0]).toMatchObject({
      method: 'HEAD',
      url: `/${ID}/resolve/main/model.safetensors`,
      token: 'Bearer secret',
    });
    const before = asked.length;
    await fetchFromHub(ID, { env });
    expect(asked.slice(before).map(({ method }) => method)).toEqual(['HEAD']);
  });

  test('goes on where the connection broke, in the same run and in a later one', async () => {
    breaks = [1_000_000, 2_000_000];
    expect(readFileSync(await fetchFromHub(ID, { env })).equals(content)).toBe(true);
    const ranges = asked.filter(({ url }) => url === '/store/blob').map(({ range }) => range);
    expect(ranges[0]).toBeUndefined();
    expect(ranges[1]).toMatch(/^bytes=\d+-$/);
    rmSync(repository(), { recursive: true });
    [asked, breaks] = [[], [1_000_000, 0, 0, 0]];
    await expect(fetchFromHub(ID, { env })).rejects.toMatchObject({
      code: 'ERR_DOWNLOAD',
      message: expect.stringMatching(/could not fetch model\.safetensors of timm\/resnet18\.a1_in1k/) as string,
    });
    expect(existsSync(repository('blobs', sha256))).toBe(false);
    asked = [];
    expect(readFileSync(await fetchFromHub(ID, { env })).equals(content)).toBe(true);
    expect(asked.find(({ url }) => url === '/store/blob')!.range).toMatch(/^bytes=\d+-$/);
  });

  test('refuses what has another hash than was told, and keeps nothing of it', async () => {
    told = 'a'.repeat(64);
    await expect(fetchFromHub(ID, { env })).rejects.toMatchObject({
      code: 'ERR_DOWNLOAD',
      message: expect.stringContaining(`Expected the hash ${told} but what came has ${sha256}`) as string,
    });
    for (const name of [told, `${told}.incomplete`]) expect(existsSync(repository('blobs', name))).toBe(false);
    told = '../../escape';
    await expect(fetchFromHub(ID, { env })).rejects.toMatchObject({ code: 'ERR_DOWNLOAD' });
  });

  test('a repository that is not there, or that wants a token', async () => {
    const fails = (id: string, text: string) =>
      expect(fetchFromHub(id, { env })).rejects.toMatchObject({
        code: 'ERR_DOWNLOAD',
        message: expect.stringContaining(text) as string,
      });
    await fails('timm/nothing', '404');
    await fails('private/model', '401');
  });

  test('without a network: the cache if it has it, else one line that says what to do', async () => {
    const away = { ...env, HF_ENDPOINT: 'http://127.0.0.1:9' };
    const message = expect.stringContaining('--pretrained none') as string;
    await expect(fetchFromHub(ID, { env: away })).rejects.toMatchObject({ code: 'ERR_DOWNLOAD', message });
    await expect(fetchFromHub(ID, { env: { ...env, HF_HUB_OFFLINE: '1' } })).rejects.toMatchObject({
      code: 'ERR_DOWNLOAD',
      message: expect.stringContaining('HF_HUB_OFFLINE') as string,
    });
    expect(asked).toEqual([]);
    const path = await fetchFromHub(ID, { env });
    expect(await fetchFromHub(ID, { env: away })).toBe(path);
    expect(await fetchFromHub(ID, { env: { ...env, HF_HUB_OFFLINE: '1' } })).toBe(path);
  });
});

describe('starting from them', () => {
  test('the stem gets the mean over RGB as its fourth channel; the classifier starts at random', async () => {
    const path = join(folder, 'timm.safetensors');
    using model = await PuzzleCam.create({ backbone: 'resnet18', device: 'cpu', seed: 8, pretrained: path });
    using random = await PuzzleCam.create({ backbone: 'resnet18', device: 'cpu', seed: 8 });
    const [timm, got, fresh] = [await readWeights(path), model.weights(), random.weights()];
    const [rgb, stem] = [timm['conv1.weight']!, got['cnn1.mfeatures.conv1.weight']!];
    expect(stem.shape).toEqual([64, 4, 7, 7]);
    const at = (t: typeof rgb, o: number, c: number, i: number): number =>
      (t.data as Float32Array)[(o * t.shape[1]! + c) * 49 + i]!;
    for (const [o, i] of [
      [0, 0],
      [17, 30],
      [63, 48],
    ] as const) {
      const three = [0, 1, 2].map((c) => at(rgb, o, c, i));
      expect([0, 1, 2].map((c) => at(stem, o, c, i))).toEqual(three);
      expect(at(stem, o, 3, i)).toBeCloseTo(three.reduce((a, b) => a + b) / 3, 6);
    }
    const layer = 'layer4.1.conv2.weight';
    expect(got[`cnn1.mfeatures.${layer}`]!.data).toEqual(timm[layer]!.data);
    expect(got['cnn1.mclassifier.weight']!.data).toEqual(fresh['cnn1.mclassifier.weight']!.data);
  });

  test('weights of another backbone are refused with every name that is wrong', async () => {
    const path = join(folder, 'timm.safetensors');
    await expect(
      PuzzleCam.create({ backbone: 'seresnext50_32x4d', device: 'cpu', pretrained: path }),
    ).rejects.toMatchObject({
      code: 'ERR_WEIGHTS',
      message: expect.stringMatching(/timm\.safetensors.*missing: .*unexpected|mis-shaped/s) as string,
    });
  });

  test('train says in one line how to go on without a network, and starts from them with one', async () => {
    const { args } = await makeSmallSet(join(folder, 'set'), 6);
    const train = ['train', ...args, '--epochs', '1', '--pretrained', 'imagenet'];
    const away = await cellcam(train, { env: { ...env, HF_ENDPOINT: 'http://127.0.0.1:9' } });
    expect(away.code).toBe(1);
    expect(away.stderr.trim()).toMatch(/^cellcam: could not fetch .*resnet18\.a1_in1k.*--pretrained none$/);
    expect(existsSync(join(folder, 'set', 'models'))).toBe(false);
    expect(await cellcam(train, { env })).toMatchObject({ code: 0 });
    expect(asked.some(({ url }) => url === '/store/blob')).toBe(true);
  });
});
