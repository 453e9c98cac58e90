import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { HPA, resizeImage, Segmenter, segmentationScore, writeWeights, type NdArray } from '../../dist';
import { readField } from '../../dist/data/field';
import { readLabelMask } from '../../dist/data/png';
import { enlargeMaps, shrinkField } from '../../dist/cells/full_scale';
import { generateFields } from '../../dist/demo/fields';
import { scratchFolder } from '../data/scratch';
import { describeShared, readTensors, shared } from '../reference_cases';

/** A field as (1, 4, size, size) in [0, 1]. */
async function image(folder: string, id: string, size: number) {
  const { planes, height, width } = await readField(folder, id, HPA);
  const top = planes.some(({ data }) => data.some((v: number) => v > 255)) ? 65535 : 255;
  const data = new Float32Array(4 * size * size);
  for (const [c, plane] of planes.entries()) {
    const grey = { data: Float32Array.from(plane.data, (v) => v / top), shape: [height, width, 1] };
    data.set(resizeImage(grey, [size, size]).data, c * size * size);
  }
  return { images: { data, shape: [1, 4, size, size] }, original: [height, width] as [number, number] };
}

/** Every (n/size)-th pixel, from the middle of each block. */
function shrunk({ data, shape: [height, width] }: NdArray<Uint16Array>, size: number): NdArray<Uint16Array> {
  const at = (i: number, n: number): number => Math.floor(((i + 0.5) * n) / size);
  const out = new Uint16Array(size * size).map((_, i) => data[at(Math.floor(i / size), height!) * width! + at(i % size, width!)]!); // prettier-ignore
  return { data: out, shape: [size, size] };
}

const FIELDS = [
  '000a6c98-bb9b',
  '5c27f04c-bb99',
  '94e33c64-bb9b',
  'a34d8680-bb99',
  'a7faf0b4-bb99',
  'b6a469d8-bbad',
  'f0ac7116-bb99',
].map((start) => `${start}-11e8-${start.endsWith('bbad') ? 'b2ba' : 'b2b9'}-ac1f6b6435d0`);
const REAL = join(shared(), '..', 'hpa-images');
const describeReal = existsSync(REAL) ? describe : describe.skip;

describeReal(`the built-in segmenter on real fields${existsSync(REAL) ? '' : ` (skipped: none at ${REAL})`}`, () => {
  test('AP at IoU .5 against the networks’ masks: .75 or more on average, .5 or more in each', async () => {
    using segmenter = await Segmenter.create({ method: 'builtin' });
    const scores: number[] = [];
    for (const id of FIELDS) {
      const { images, original } = await image(REAL, id, 512);
      const [found] = await segmenter.segment(images, { originalSizes: [original] });
      const truth = shrunk(await readLabelMask(join(REAL, `${id}_predictedmask.png`)), 512);
      scores.push(segmentationScore(found!.cells, truth).averagePrecision);
    }
    expect(Math.min(...scores)).toBeGreaterThanOrEqual(0.5);
    expect(scores.reduce((a, b) => a + b) / scores.length).toBeGreaterThanOrEqual(0.75);
  }, 120_000);
});

describe('the built-in segmenter', () => {
  const scratch = scratchFolder();

  test('drawn fields: nuclei carry their cells’ numbers, 1 to the number of cells', async () => {
    const set = await generateFields({ folder: scratch.path(), fields: 3, size: 128, seed: 5 });
    using segmenter = await Segmenter.create({ method: 'builtin', spec: set.spec });
    for (const id of set.fields.map((f) => f.id)) {
      const { images } = await image(set.imagesFolder, id, 128);
      const [{ cells, nuclei } = { cells: undefined!, nuclei: undefined! }] = await segmenter.segment(images);
      const truth = await readLabelMask(join(set.masksFolder, `${id}.png`));
      expect(segmentationScore(cells, truth).averagePrecision).toBeGreaterThan(0.5);
      const numbers = [...new Set(cells.data)].filter((v) => v > 0).sort((a, b) => a - b);
      expect(numbers).toEqual(numbers.map((_, i) => i + 1));
      expect(nuclei.data.every((v, i) => v === 0 || v === cells.data[i])).toBe(true);
      expect(new Set(nuclei.data).size - 1).toBe(numbers.length);
    }
  });

  test('an empty field has no cells, wherever its level', async () => {
    using segmenter = await Segmenter.create({ method: 'builtin' });
    for (const level of [0, 0.3, 1]) {
      const images = { data: new Float32Array(4 * 64 * 96).fill(level), shape: [1, 4, 64, 96] };
      const [found] = await segmenter.segment(images);
      expect(found!.cells.shape).toEqual([64, 96]);
      expect(found!.cells.data.every((v) => v === 0)).toBe(true);
    }
  });

  test('what cannot be segmented', async () => {
    using segmenter = await Segmenter.create({ method: 'builtin' });
    const images = { data: new Float32Array(4 * 16), shape: [1, 4, 4, 4] };
    images.data[7] = NaN;
    await expect(segmenter.segment(images)).rejects.toThrow(/from 0 to 1 for images.data\[7\] .* NaN/);
    await expect(segmenter.probabilities({ ...images, data: new Float32Array(64) })).rejects.toThrow(/'hpa'/);
    await expect(segmenter.segment({ data: new Float32Array(48), shape: [1, 3, 4, 4] })).rejects.toThrow(
      /\(B, 4, H, W\)/,
    );
    await expect(Segmenter.create({ method: 'best' } as never)).rejects.toThrow(/builtin, hpa/);
    segmenter.dispose();
    await expect(async () => segmenter.segment(images)).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });
});

describe('the networks’ files', () => {
  const scratch = scratchFolder();

  test('other weights are refused by name', async () => {
    const path = scratch.path('other.safetensors');
    await writeWeights(path, { 'final.0.bias': { dtype: 'float32', shape: [3], data: new Float32Array(3) } });
    await expect(Segmenter.create({ method: 'hpa', nucleiWeights: path, cellWeights: path })).rejects.toMatchObject({
      code: 'ERR_WEIGHTS',
      message: expect.stringMatching(
        /DPN U-Net in .*other.safetensors .*missing: bottlenecks.0.seq.0.weight/,
      ) as string,
    });
  });
});

describeShared('fields at full size', () => {
  test('what the networks see of a quarter, padded', () => {
    const read = readTensors(shared('dpn_unet', 'wrapper', 'wrapper.safetensors'));
    const { bytes } = read('image_64x64');
    const plane = (c: number): Float32Array => new Float32Array(64 * 64).map((_, i) => bytes[4 * i + c]! / 255);
    for (const [input, channels] of [
      ['quarter_padded.nuclei.net_input', [2, 2, 2]],
      ['quarter_padded.cell.net_input', [0, 3, 2]],
    ] as const) {
      const { images } = shrinkField(channels.map(plane), [64, 64]);
      const want = read(input);
      expect(images.shape).toEqual(want.shape);
      const mean = [124, 117, 104];
      const size = images.data.length / 3;
      const worst = images.data.reduce((most, v, i) => {
        const normalised = (v - mean[Math.floor(i / size)]! / 255) * (0.0167 * 255);
        return Math.max(most, Math.abs(normalised - want.data[i]!));
      }, 0);
      expect(worst).toBeLessThan(1e-6);
    }
  });

  test('what the networks say, back at full size', () => {
    const read = readTensors(shared('dpn_unet', 'wrapper', 'wrapper.safetensors'));
    for (const which of ['nuclei', 'cell']) {
      const shrunkField = { images: read(`quarter_padded.${which}.net_input`), offset: [32, 32], size: [16, 16] };
      const maps = enlargeMaps(read(`quarter_padded.${which}.softmax`), shrunkField as never, [64, 64]);
      expect(Buffer.from(maps.data).equals(Buffer.from(read(`quarter_padded.${which}.uint8`).bytes))).toBe(true);
    }
  });
});
