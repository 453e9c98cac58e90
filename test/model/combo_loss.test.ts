import { ComboLoss } from '../../dist';
import { describeShared, readJson, readTensors, shared } from '../reference_cases';

interface Case {
  case: string;
  alpha: number;
  beta: number;
  gamma: number;
  only_y_pred?: boolean;
  loss: number;
}

const NAMES = {
  logits: 'y_pred',
  maps: 'features_single',
  tiledLogits: 'y_pred_tiles',
  tiledMaps: 'features_tiles',
} as const;

/** As Python prints the float. */
function python(value: number): string {
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}

test('refuses negative weights and targets of another shape', async () => {
  expect(() => new ComboLoss({ alpha: -1 })).toThrow('alpha');
  const logits = { data: new Float32Array(6), shape: [2, 3] };
  await expect(new ComboLoss().compute({ logits }, { data: new Float32Array(4), shape: [2, 2] })).rejects.toThrow(
    '(2, 3)',
  );
});

test('without tiles only the first term counts', async () => {
  const logits = { data: Float32Array.of(0, 0), shape: [1, 2] };
  const loss = await new ComboLoss().compute({ logits }, { data: Float32Array.of(0, 1), shape: [1, 2] });
  expect(loss.total).toBeCloseTo(Math.log(2), 6);
  expect([loss.tiled, loss.l1]).toEqual([0, 0]);
});

describeShared('ComboLoss against the reference', () => {
  const cases = () => readJson<Case[]>(shared('loss', 'combo_loss.json'));
  test('values and gradients within 1e-6', async () => {
    const tensors = readTensors(shared('loss', 'combo_loss.safetensors'));
    for (const { case: name, alpha, beta, gamma, only_y_pred: single, loss } of cases()) {
      const logits = tensors(`${name}.y_pred`);
      const output = single
        ? { logits }
        : {
            logits,
            maps: tensors(`${name}.features_single`),
            tiledLogits: tensors(`${name}.y_pred_tiles`),
            tiledMaps: tensors(`${name}.features_tiles`),
          };
      const got = await new ComboLoss({ alpha, beta, gamma }).compute(output, tensors(`${name}.y_true`));
      expect(Math.abs(got.total - loss) / Math.abs(loss)).toBeLessThan(1e-6);
      if (single) continue;
      const weights = `a${python(alpha)}_b${python(beta)}_g${python(gamma)}`;
      for (const [ours, theirs] of Object.entries(NAMES)) {
        const want = tensors(`${name}.${weights}.grad.${theirs}`).data;
        const largest = want.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
        const gradient = got.gradients[ours as keyof typeof NAMES]!.data;
        const worst = want.reduce((most, v, i) => Math.max(most, Math.abs(v - gradient[i]!)), 0);
        expect(worst).toBeLessThanOrEqual(1e-6 * largest);
      }
    }
  });
});
