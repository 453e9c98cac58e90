import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PuzzleCam as Model, Weights } from '../../dist';
import { listBackbones, PuzzleCam, Trainer, readWeights, writeWeights } from '../../dist';
import { cpuFeatures } from '../../dist/cli/machine';
import { describeShared, readJson, readTensors, shared } from '../reference_cases';
import { fillImages, fillTensor } from './generator';

interface Losses {
  alpha: number;
  beta: number;
  gamma: number;
  loss: number;
  bce_single: number;
  bce_tiled: number;
  l1_features: number;
}
interface Case {
  eval_input_shape: [number, number, number, number];
  train_input_shape: [number, number, number, number];
  eval_input_first8: number[];
  state_dict: { key: string; shape: number[]; dtype: string; first: number[] }[];
  parameters_in_order: string[];
  small_params: string[];
  train: Record<string, { loss_ref64: Losses; grad_l2_ref64: number[] }>;
}
type Tensors = ReturnType<typeof readTensors>;

function relative(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let [difference, size] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    difference += (got[i]! - want[i]!) ** 2;
    size += want[i]! ** 2;
  }
  return got.length === want.length ? Math.sqrt(difference / size) : Infinity;
}

function l2(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return Math.sqrt(sum);
}

function stateDict(reference: Case): Weights {
  const entries = reference.state_dict.map(({ key, shape, dtype }) => {
    const data = dtype === 'int64' ? new BigInt64Array(1) : fillTensor(key, shape, 1);
    return [key, { dtype: dtype as 'float32', shape, data }] as const;
  });
  return Object.fromEntries(entries);
}

/** One line a tensor; a comparison value by value would take jest a minute. */
function digests(weights: Weights): string[] {
  return Object.entries(weights).map(([name, { dtype, shape, data }]) => {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return `${name} ${dtype} ${shape.join()} ${createHash('sha256').update(bytes).digest('hex')}`;
  });
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cellcam-model-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('PuzzleCam', () => {
  test('refuses wrong options', async () => {
    await expect(PuzzleCam.create({ backbone: 'resnet19' })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG',
      message: expect.stringContaining('resnet18') as string,
    });
    await expect(PuzzleCam.create({ backbone: 'resnet18', numClasses: 0 })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG',
    });
    await expect(PuzzleCam.create({ backbone: 'resnet18', device: 'gpu' as 'cpu' })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG',
    });
  });

  test('refuses images of a wrong shape and sizes whose maps disagree', async () => {
    using model = await PuzzleCam.create({ backbone: 'resnet18', device: 'cpu' });
    const images = (shape: number[]) => ({ data: new Float32Array(shape.reduce((a, b) => a * b, 1)), shape });
    await expect(model.forward(images([1, 3, 64, 64]))).rejects.toMatchObject({ code: 'ERR_INVALID_ARG' });
    await expect(model.forward(images([1, 4, 65, 64]), { tiled: true })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG',
    });
    const targets = { data: new Float32Array(19), shape: [1, 19] };
    await expect(model.gradients(images([1, 4, 96, 96]), targets)).rejects.toThrow('multiples of 64');
  });

  test('dispose may be called twice; using the model afterwards is an error', async () => {
    const model = await PuzzleCam.create({ backbone: 'resnet18', device: 'cpu' });
    model.dispose();
    model.dispose();
    expect(() => model.parameters()).toThrow('disposed');
  });

  test('weights survive a file, and a file that does not fit is named with all that is wrong', async () => {
    using a = await PuzzleCam.create({ backbone: 'resnet18', device: 'cpu', numClasses: 3, inChannels: 2, seed: 1 });
    using b = await PuzzleCam.create({ backbone: 'resnet18', device: 'cpu', numClasses: 3, inChannels: 2, seed: 2 });
    const path = join(folder, 'a.safetensors');
    await a.saveWeights(path);
    await b.loadWeights(path);
    expect(digests(b.weights())).toEqual(digests(a.weights()));
    const weights = await readWeights(path);
    delete weights['cnn1.mfeatures.bn1.bias'];
    weights['extra'] = { dtype: 'float32', shape: [1], data: new Float32Array(1) };
    weights['cnn1.mclassifier.weight'] = { dtype: 'float32', shape: [4, 512, 1, 1], data: new Float32Array(4 * 512) };
    await writeWeights(path, weights);
    const wrong = b.loadWeights(path);
    await expect(wrong).rejects.toMatchObject({ code: 'ERR_WEIGHTS' });
    await expect(wrong).rejects.toThrow(
      /a\.safetensors.*missing: cnn1\.mfeatures\.bn1\.bias.*unexpected: extra.*mis-shaped: cnn1\.mclassifier/s,
    );
    expect(digests(b.weights())).toEqual(digests(a.weights()));
  });
});

describeShared('PuzzleCam against the reference', () => {
  describe.each(listBackbones().map(({ name }) => name))('%s', (backbone) => {
    const name = shared('models', `${backbone}_seed1`);
    const evalTolerance = backbone === 'resnet18' ? 1e-5 : 5e-3; // of gradients with norms in eval mode
    let reference: Case;
    let tensors: Tensors;
    let model: Model;
    let weights: Weights;

    beforeAll(async () => {
      reference = readJson<Case>(`${name}.json`);
      tensors = readTensors(`${name}.safetensors`);
      weights = stateDict(reference);
      const path = join(folder, `${backbone}.safetensors`);
      await writeWeights(path, weights);
      model = await PuzzleCam.create({ backbone, device: 'cpu', pretrained: path });
    });
    afterAll(() => model.dispose());

    const training = () => ({
      images: { data: fillImages(reference.train_input_shape, 1001), shape: reference.train_input_shape as number[] },
      targets: tensors('train.target'),
    });

    test('has the names of the state dict in its order', () => {
      expect(Object.keys(model.weights())).toEqual(reference.state_dict.map(({ key }) => key));
      expect(model.parameters().map((p) => p.name)).toEqual(reference.parameters_in_order);
    });

    test('eval outputs within 1e-5', async () => {
      const shape = reference.eval_input_shape;
      const out = await model.forward({ data: fillImages(shape, 1), shape }, { tiled: true });
      const pairs = {
        logits: 'single_logits',
        maps: 'single_features',
        tiledLogits: 'tiled_logits',
        tiledMaps: 'tiled_features',
      } as const;
      for (const [ours, theirs] of Object.entries(pairs)) {
        expect(relative(out[ours as keyof typeof pairs]!.data, tensors(`eval.${theirs}.ref64`).data)).toBeLessThan(
          1e-5,
        );
      }
    });

    test('train losses, outputs and gradients', async () => {
      for (const [combo, want] of Object.entries(reference.train)) {
        await model.setWeights(weights);
        const { images, targets } = training();
        const { alpha, beta, gamma } = want.loss_ref64;
        const got = await model.gradients(images, targets, { loss: { alpha, beta, gamma } });
        expect(Math.abs(got.loss.total / want.loss_ref64.loss - 1)).toBeLessThan(1e-5);
        expect(Math.abs(got.loss.full / want.loss_ref64.bce_single - 1)).toBeLessThan(1e-5);
        expect(relative(got.output.maps.data, tensors('train.single_features.ref64').data)).toBeLessThan(5e-4);
        reference.parameters_in_order.forEach((key, i) => {
          expect(Math.abs(l2(got.gradients[key]!.data) / want.grad_l2_ref64[i]! - 1)).toBeLessThan(0.05);
        });
        for (const key of reference.small_params) {
          expect(relative(got.gradients[key]!.data, tensors(`train.${combo}.grad.${key}.ref64`).data)).toBeLessThan(
            0.15,
          );
        }
      }
    });

    /** Weights after it, as near the reference as float32's. */
    async function stepOfAdam(precision: 'fp32' | 'int16') {
      await model.setWeights(weights);
      using trainer = new Trainer({ model, precision });
      const { images, targets } = training();
      await trainer.step(images, targets, 3e-4);
      const after = model.weights();
      for (const key of reference.small_params) {
        expect(relative(after[key]!.data as Float32Array, tensors(`adam.${key}.ref64`).data)).toBeLessThan(5e-3);
      }
      return after;
    }

    test('gradients by integers of 16 bits, where the CPU has them: float32 forward, near float64 backward', async () => {
      await model.setWeights(weights);
      const { images, targets } = training();
      const { avx2, avx512f, avx512_vnni } = cpuFeatures();
      if (!avx2 || (avx512f && !avx512_vnni)) {
        await expect(model.forward(images, { precision: 'int16' })).rejects.toMatchObject({ code: 'ERR_INVALID_ARG' });
        return;
      }
      const [combo, { loss_ref64: want, grad_l2_ref64: norms }] = Object.entries(reference.train)[0]!;
      const { alpha, beta, gamma } = want;
      const trained = await model.gradients(images, targets, { loss: { alpha, beta, gamma }, precision: 'int16' });
      expect(Math.abs(trained.loss.total / want.loss - 1)).toBeLessThan(1e-5);
      reference.parameters_in_order.forEach((key, i) => {
        expect(Math.abs(l2(trained.gradients[key]!.data) / norms[i]! - 1)).toBeLessThan(0.05);
      });
      for (const key of reference.small_params) {
        expect(relative(trained.gradients[key]!.data, tensors(`train.${combo}.grad.${key}.ref64`).data)).toBeLessThan(
          0.15,
        );
      }
      await model.setWeights(weights);
      const plain = await model.gradients(images, targets, { train: false });
      const got = await model.gradients(images, targets, { train: false, precision: 'int16' });
      expect(got.output.maps.data).toEqual(plain.output.maps.data);
      const sharp = readTensors(`${name}_evalgrad.safetensors`);
      let furthest = 0;
      for (const key of reference.small_params) {
        const apart = relative(got.gradients[key]!.data, sharp(`grad.${key}.ref64`).data);
        expect(apart).toBeLessThan(evalTolerance); // bf16: 2.6e-2 to .17
        furthest = Math.max(furthest, relative(got.gradients[key]!.data, plain.gradients[key]!.data));
      }
      if (backbone === 'resnet18') expect(furthest).toBe(0);
      else expect(furthest).toBeGreaterThan(1e-6);
      await stepOfAdam('int16');
    });

    test('gradients with batch norm in eval mode within 5e-3', async () => {
      await model.setWeights(weights);
      const sharp = readTensors(`${name}_evalgrad.safetensors`);
      const { images, targets } = training();
      const got = await model.gradients(images, targets, { train: false });
      for (const key of reference.small_params) {
        expect(relative(got.gradients[key]!.data, sharp(`grad.${key}.ref64`).data)).toBeLessThan(evalTolerance);
      }
      expect(relative(got.output.maps.data, sharp('single_features.ref64').data)).toBeLessThan(1e-5);
    });

    test('one Adam step', async () => {
      const after = await stepOfAdam('fp32');
      const counters = Object.entries(after).filter(([key]) => key.endsWith('num_batches_tracked'));
      for (const [, { data }] of counters) expect(data[0]).toBe(2n);
    });
  });
});
