import { release } from '../../dist/data/release';
import { resizeField, resizeImage } from '../../dist/data/resize';
import { describeShared, fixture, readJson, readTensors, shared } from '../reference_cases';
import { uniform } from './splitmix';

interface Case {
  name: string;
  input_shape: number[];
  output_shape: [number, number];
  kind: 'u8' | 'u16';
}

/** The largest difference to scikit-image for the case given as integers and as float32. */
function worstDifference(c: Case, expected: Float32Array): number[] {
  const [h = 0, w = 0, channels = 1] = c.input_shape;
  const top = c.kind === 'u8' ? 255 : 65535;
  const u = uniform(`resize:${c.name}`, 1, h * w * channels);
  const values = u.map((v) => Math.floor((top + 1) * v));
  const integers = c.kind === 'u8' ? Uint8Array.from(values) : Uint16Array.from(values);
  const floats = Float32Array.from(integers, (v) => v / top);
  return [integers, floats].map((data) => {
    const { data: got } = resizeImage({ data, shape: [h, w, channels] }, [c.output_shape[0], c.output_shape[1]]);
    expect(got.length).toBe(expected.length);
    return got.reduce((worst, v, i) => Math.max(worst, Math.abs(v - expected[i]!)), 0);
  });
}

function plane(data: Uint8Array | Uint16Array, shape: number[]) {
  return { data, shape };
}

describe('resizeImage', () => {
  const image = { data: new Uint8Array(12), shape: [2, 2, 3] };

  test.each([
    ['no image', undefined, [1, 1]],
    ['two dimensions', { data: new Uint8Array(4), shape: [2, 2] }, [1, 1]],
    ['a shape that does not fit', { data: new Uint8Array(11), shape: [2, 2, 3] }, [1, 1]],
    ['another array type', { data: new Int32Array(12), shape: [2, 2, 3] }, [1, 1]],
    ['no pixels', { data: new Uint8Array(0), shape: [0, 2, 3] }, [1, 1]],
    ['a size of one number', image, [1]],
    ['a size of zero', image, [0, 4]],
    ['a size that is no integer', image, [1.5, 4]],
  ])('refuses %s', (_, input, size) => {
    expect(() => resizeImage(input as never, size as never)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG' }) as Error,
    );
  });

  test('a small image equals scikit-image', () => {
    const small: Case = { name: '12_to_40', input_shape: [12, 12], output_shape: [40, 40], kind: 'u8' };
    const expected = readTensors(fixture('hdf5', 'resize_small.safetensors'))('12_to_40').data;
    for (const worst of worstDifference(small, expected)) expect(worst).toBeLessThanOrEqual(2e-7);
  });

  test('an image of the same size is only normalised', () => {
    const data = Uint16Array.from({ length: 12 }, (_, i) => i * 5957);
    const same = resizeImage({ data, shape: [3, 4, 1] }, [3, 4]);
    expect(same.shape).toEqual([3, 4, 1]);
    expect([...same.data]).toEqual([...data].map((v) => Math.fround(v / 65535)));
  });

  test('images of one row, one column and one pixel, blurs wider than the image', () => {
    const one = { data: Uint8Array.of(51), shape: [1, 1, 1] };
    expect([...resizeImage(one, [2, 3]).data]).toEqual(Array(6).fill(Math.fround(0.2)));
    const row = { data: Uint8Array.from({ length: 300 }, (_, i) => i % 2), shape: [1, 300, 1] };
    for (const value of resizeImage(row, [4, 1]).data) expect(value * 255).toBeCloseTo(0.5, 2);
  });

  test('channels do not mix', () => {
    const data = Uint8Array.from({ length: 20 * 20 * 3 }, (_, i) => [0, 100, 255][i % 3]!);
    const { data: out } = resizeImage({ data, shape: [20, 20, 3] }, [7, 9]);
    out.forEach((v, i) => expect(v).toBeCloseTo([0, 100 / 255, 1][i % 3]!, 6));
  });
});

describe('release', () => {
  test('gives large arrays back at once and leaves small ones, which may share their memory', () => {
    const [large, small] = [new Uint16Array(65_536), Buffer.from('pooled')];
    release([large, small]);
    expect([large.length, large.buffer.byteLength]).toEqual([0, 0]);
    expect(String(small)).toBe('pooled');
  });
});

describe('resizeField', () => {
  const field = (planes: (Uint8Array | Uint16Array)[], height: number, width: number) => ({
    planes: planes.map((p) => plane(p, [height, width])),
    height,
    width,
  });

  test('16-bit files whose values fit 8 bits are taken as 8-bit', async () => {
    const low = field([Uint16Array.of(255), Uint16Array.of(51)], 1, 1);
    expect([...(await resizeField(low, 1, 'float32'))]).toEqual([1, Math.fround(0.2)]);
    expect([...(await resizeField(low, 1, 'uint8'))]).toEqual([255, 51]);
  });

  test('one value above 255 in any channel makes the whole field 16-bit', async () => {
    const deep = field([Uint16Array.of(65535), Uint16Array.of(255), Uint8Array.of(255)], 1, 1);
    const full = Math.fround(255 / 65535);
    expect([...(await resizeField(deep, 1, 'float32'))]).toEqual([1, full, full]);
    expect([...(await resizeField(field([Uint16Array.of(255), Uint16Array.of(256)], 1, 1), 1, 'uint8'))]).toEqual([
      0, 0,
    ]);
  });

  test('uint8 is floor(255 x) of the float32 result', async () => {
    const planes = [1, 2, 3, 4].map((seed) => Uint16Array.from(uniform('field', seed, 61 * 47), (u) => u * 65536));
    const f = await resizeField(field(planes, 61, 47), 16, 'float32');
    const u = await resizeField(field(planes, 61, 47), 16, 'uint8');
    expect([...u]).toEqual(Array.from(f, (v) => Math.floor(Math.fround(255 * v))));
    expect(new Set(u).size).toBeGreaterThan(50);
  });

  test('several at once give what one at a time gives', async () => {
    const planes = [Uint8Array.from(uniform('many', 1, 90 * 90), (u) => u * 256)];
    const alone = await resizeField(field(planes, 90, 90), 20, 'uint8');
    const together = await Promise.all(
      Array.from({ length: 8 }, () => resizeField(field(planes, 90, 90), 20, 'uint8')),
    );
    for (const one of together) expect([...one]).toEqual([...alone]);
  });
});

describeShared('reference cases of scikit-image', () => {
  const cases = readJson<Case[]>(fixture('hdf5', 'resize.json'));
  test.each(cases.map((c) => [c.name, c] as const))('%s', (name, c) => {
    const expected = readTensors(shared('hdf5', 'resize.safetensors'))(name).data;
    for (const worst of worstDifference(c, expected)) expect(worst).toBeLessThanOrEqual(2e-7);
  });
});
