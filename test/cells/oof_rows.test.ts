import { oofHeader, oofRow } from '../../dist/cells/oof_rows';
import { datasetSpec } from '../../dist/data/dataset_spec';

const size = { height: 20, width: 30 };
const row = (values: number[], id = 'x') =>
  oofRow(id, size, { cellId: 3, center: [4, 5], probabilities: Float32Array.from(values) });

describe('oofRow', () => {
  it.each([NaN, Infinity, -0.1, 1.5])('refuses the probability %p', (value) => {
    expect(() => row([0, value])).toThrow('probabilities[1]');
    expect(() => row([0, value])).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG' }) as Error);
  });

  it('refuses wrong ids and sizes', () => {
    const prediction = { cellId: 1, center: [0, 0] as [number, number], probabilities: new Float32Array(1) };
    expect(() => oofRow('', size, prediction)).toThrow('id');
    expect(() => oofRow('x', { height: 0, width: 1 }, prediction)).toThrow('size.height');
    expect(() => oofRow('x', undefined as never, prediction)).toThrow('size.width');
  });

  it('writes width before height and quotes what needs it', () => {
    expect(row([0, 1])).toBe('x,30,20,3,"(4, 5)",0.0,1.0\n');
    expect(row([0.5], 'a,"b"')).toBe('"a,""b""",30,20,3,"(4, 5)",0.5\n');
  });

  it.each([
    [0.7114047, '0.7114047'],
    [1e-3, '0.001'],
    [1.0000001e-4, '0.00010000001'],
    // The float32 next to 1e-4 lies below it.
    [1e-4, '1e-04'],
    [9.9e-5, '9.9e-05'],
    [1.234e-5, '1.234e-05'],
    [1e-10, '1e-10'],
    // Exact halves of the last digit go to the even one.
    [0.173828125, '0.17382812'],
    [2 ** -12, '0.00024414062'],
    [2 ** -96, '1.2621775e-29'],
    [2 ** -149, '1e-45'],
  ])('writes %p as numpy does', (value, text) => {
    expect(row([value])).toBe(`x,30,20,3,"(4, 5)",${text}\n`);
    expect(Math.fround(Number(text))).toBe(Math.fround(value));
  });

  it('has a column a class', () => {
    const spec = datasetSpec({ classes: ['a', 'b'], channels: ['x'] });
    expect(oofHeader(spec)).toBe('ID,ImageWidth,ImageHeight,cell_id,cell_center,0,1\n');
    expect(oofHeader().split(',')).toHaveLength(24);
  });
});
