import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { listWeights, readWeights, writeWeights, type Weights, type WeightTensor } from '../../dist';
import { describeShared, fixture, readJson, shared } from '../reference_cases';
import { scratchFolder } from './scratch';
import { RandomStream } from '../../dist/demo/random';

const scratch = scratchFolder();

interface Expected {
  order: string[];
  tensors: { key: string; dtype: string; shape: number[]; sha256_little_endian: string }[];
}

function digest({ dtype, shape, data }: WeightTensor): string {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return `${dtype} ${shape.join()} ${createHash('sha256').update(bytes).digest('hex')}`;
}

function digests(weights: Weights): string[] {
  return Object.entries(weights).map(([name, tensor]) => `${name} ${digest(tensor)}`);
}

function expectTensors(weights: Weights, { tensors }: Expected): void {
  for (const { key, dtype, shape, sha256_little_endian: sha256 } of tensors) {
    expect(`${key} ${digest(weights[key]!)}`).toBe(`${key} ${dtype} ${shape.join()} ${sha256}`);
  }
  expect(Object.keys(weights).length).toBe(tensors.length);
}

async function refusal(path: string, o = {}): Promise<string> {
  const error: unknown = await readWeights(path, o).then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toMatchObject({ code: 'ERR_WEIGHTS' });
  const { message } = error as Error;
  expect(message).toContain(path);
  return message.slice(message.indexOf(path) + path.length);
}

const expected = readJson<Expected>(fixture('weights', 'tiny_expected.json'));

describe('good files', () => {
  test.each(['tiny.safetensors', 'tiny_zip.pt', 'tiny_legacy.pt', 'tiny_dataparallel_zip.pt'])('%s', async (name) => {
    const weights = await readWeights(fixture('weights', name));
    expectTensors(weights, expected);
    if (name !== 'tiny.safetensors') expect(Object.keys(weights)).toEqual(expected.order);
    const outline = await listWeights(fixture('weights', name));
    expect(outline).toEqual(Object.entries(weights).map(([key, { dtype, shape }]) => ({ name: key, dtype, shape })));
  });

  test.each(['out.pt', 'out.pth', 'out.safetensors'])('come back the same from %s', async (name) => {
    const weights = await readWeights(fixture('weights', 'tiny_zip.pt'));
    await writeWeights(scratch.path(name), weights);
    const back = await readWeights(scratch.path(name));
    expect(digests(back).sort()).toEqual(digests(weights).sort());
    expect(readdirSync(scratch.path())).toEqual([name]);
  });

  test('a file of the same tensors has the same bytes whenever it is written', async () => {
    const weights = await readWeights(fixture('weights', 'tiny_zip.pt'));
    for (const name of ['a.pt', 'b.pt']) await writeWeights(scratch.path(name), weights);
    expect(readFileSync(scratch.path('a.pt')).equals(readFileSync(scratch.path('b.pt')))).toBe(true);
  });
});

describe('bad files are refused by the rule that they break', () => {
  test.each([
    ['bad_empty.pt', /has 0 bytes/],
    ['bad_header_length.safetensors', /header is said to have/],
    ['bad_malicious_legacy.pt', /posix\.system/],
    ['bad_malicious_zip.pt', /posix\.system/],
    ['bad_not_a_checkpoint.pt', /neither of the two formats/],
    ['bad_truncated.safetensors', /outside the file/],
    ['bad_truncated_header.safetensors', /header is said to have/],
    ['bad_truncated_legacy.pt', /ends too early/],
    ['bad_truncated_zip.pt', /no whole zip/],
  ])('%s', async (name, rule) => {
    expect(await refusal(fixture('weights', name))).toMatch(rule);
  });

  test('a missing file, and another extension', async () => {
    await expect(readWeights(scratch.path('no.pt'))).rejects.toMatchObject({ code: 'ERR_FILE_NOT_FOUND' });
    await expect(readWeights('model.onnx')).rejects.toMatchObject({ code: 'ERR_INVALID_ARG' });
  });
});

/** A pickle in a zip as torch.save lays it out, by way of a good file whose data.pkl is replaced by one as long. */
describe('pickles that reach too far', () => {
  const legacy = readFileSync(fixture('weights', 'tiny_legacy.pt'));

  function mutated(from: string, to: string): string {
    const text = legacy.toString('latin1');
    expect(text).toContain(from);
    writeFileSync(scratch.path('m.pt'), Buffer.from(text.replace(from, to), 'latin1'));
    return scratch.path('m.pt');
  }

  test.each([
    ['another function', 'c__builtin__\neval_aa_of_a_name\n', /__builtin__\.eval/],
    ['another class', 'csubprocess\nPopen_and_more_text\n', /subprocess\.Popen/],
  ])('%s', async (_, opcode, rule) => {
    const original = 'ctorch._utils\n_rebuild_tensor_v2\n';
    expect(await refusal(mutated(original, opcode.padEnd(original.length)))).toMatch(rule);
  });

  test('a tensor larger than its storage', async () => {
    // The first tensor's size (6, 4, 3, 3): BININT1 each.
    expect(await refusal(mutated('(K\x06K\x04K\x03K\x03t', '(K\x06K\x04K\x03K\x04t'))).toMatch(
      /outside its storage|another size/,
    );
  });
});

describe('whole modules', () => {
  const old = fixture('weights', 'tiny_old_dataparallel_legacy.pth');

  test('are refused unless asked for, with the name of their class', async () => {
    expect(await refusal(old)).toMatch(/asks for torch\.nn\.parallel.*whole module/);
  });

  test('give their tensors and run nothing', async () => {
    const weights = await readWeights(old, { wholeModule: true });
    const trap = await readWeights(fixture('weights', 'trap_attribute_zip.pth'), { wholeModule: true });
    expect(Object.keys(weights).length).toBe(145);
    expect(digests(trap)).toEqual(digests(weights));
    for (const folder of [process.cwd(), fixture('weights')])
      expect(existsSync(join(folder, 'TRAP_EXECUTED'))).toBe(false);
  });
});

describeShared('whole modules against the reference', () => {
  const folder = shared('dpn_unet', 'wholemodule');
  test('good ones', async () => {
    const all = readJson<Expected>(join(folder, 'tiny_expected.json'));
    for (const name of readdirSync(folder).filter((file) => /^(tiny|trap).*\.pth$/.test(file))) {
      const weights = await readWeights(join(folder, name), { wholeModule: true });
      expectTensors(weights, all);
      expect(Object.keys(weights)).toEqual(all.order);
    }
  });

  test('bad ones', async () => {
    for (const name of readdirSync(folder).filter((file) => file.startsWith('bad_'))) {
      expect(await refusal(join(folder, name), { wholeModule: true })).not.toBe('');
    }
  });
});

/** Flips, cuts, overwrites and moves bytes of a good file. */
function mutate(bytes: Buffer, random: () => number): Buffer {
  const below = (n: number): number => Math.floor(random() * n);
  const out = Buffer.from(bytes);
  for (let changes = 1 + below(4); changes > 0; changes--) {
    const at = below(out.length);
    const kind = below(5);
    if (kind === 0) out[at] = out[at]! ^ (1 << below(8));
    else if (kind === 1) out[at] = below(256);
    else if (kind === 2) out.fill(below(2) * 255, at, Math.min(out.length, at + 1 + below(8)));
    else if (kind === 3) out.copyWithin(at, below(out.length), below(out.length));
    else return out.subarray(0, at);
  }
  return out;
}

/** CELLCAM_MUTATIONS sets how many; a run of 100,000 takes minutes. */
test('mutated files are read or refused, quickly and within bounds of memory', async () => {
  const files = [
    'tiny_zip.pt',
    'tiny_legacy.pt',
    'tiny.safetensors',
    'tiny_old_dataparallel_legacy.pth',
    'trap_attribute_zip.pth',
  ];
  const good = files.map((name) => readFileSync(fixture('weights', name)));
  const stream = new RandomStream(11);
  const random = (): number => stream.uniform();
  const outcomes = { read: 0, refused: 0 };
  for (let i = 0; i < Number(process.env['CELLCAM_MUTATIONS'] ?? 2000); i++) {
    const which = i % files.length;
    const path = scratch.path(files[which]!);
    const bytes = mutate(good[which]!, random);
    writeFileSync(path, bytes);
    const began = performance.now();
    try {
      const weights = await readWeights(path, { wholeModule: i % 2 === 0 });
      const total = Object.values(weights).reduce((sum, { data }) => sum + data.byteLength, 0);
      expect(total).toBeLessThanOrEqual(8 * bytes.length + 1024 * 1024);
      outcomes.read++;
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_WEIGHTS' });
      outcomes.refused++;
    }
    expect(performance.now() - began).toBeLessThan(1000);
  }
  expect(outcomes.refused).toBeGreaterThan(outcomes.read / 10);
}, 3600000);
