import { invalidArgument, requireInteger, requireNumber } from '../options';

/** Improvements smaller than this share of the best loss do not count. */
const THRESHOLD = 1e-4;
/** Changes of the rate up to this are not made. */
const SMALLEST_CHANGE = 1e-8;

export interface PlateauOptions {
  /** The first rate. */
  lr: number;
  /** What the rate is multiplied by on a plateau, between 0 and 1. */
  factor?: number;
  /** Epochs without improvement that are borne before the rate falls. */
  patience?: number;
  /** The rate never falls below this. */
  minLr?: number;
}

/** All that is needed to go on; plain JSON. */
export interface PlateauState extends Required<PlateauOptions> {
  /** The lowest loss so far; null before the first. */
  best: number | null;
  /** Epochs since the best. */
  bad: number;
}

/** Lowers the learning rate when the validation loss stops falling, number for number as PyTorch's ReduceLROnPlateau. */
export class ReduceLrOnPlateau {
  private lr: number;
  private readonly factor: number;
  private readonly patience: number;
  private readonly minLr: number;
  private best = Infinity;
  private bad = 0;

  /** @throws CellcamError ERR_INVALID_ARG */
  constructor({ lr, factor = 0.3, patience = 8, minLr = 1e-6 }: PlateauOptions) {
    this.lr = requireBetween(lr, 'lr', Infinity);
    this.factor = requireBetween(factor, 'factor', 1);
    this.patience = requireInteger(patience, 'patience', 0);
    this.minLr = requireNumber(minLr, 'minLr', 0);
  }

  /**
   * Takes in one epoch's loss; NaN never improves.
   * @returns the learning rate of the next epoch
   */
  step(loss: number): number {
    if (typeof loss !== 'number') throw invalidArgument('a number', 'loss', loss);
    if (loss < this.best * (1 - THRESHOLD)) {
      this.best = loss;
      this.bad = 0;
    } else {
      this.bad += 1;
    }
    if (this.bad > this.patience) this.reduce();
    return this.lr;
  }

  /** What `from` needs to go on exactly here. */
  state(): PlateauState {
    const { lr, factor, patience, minLr, bad } = this;
    return { lr, factor, patience, minLr, best: this.best === Infinity ? null : this.best, bad };
  }

  /** @throws CellcamError ERR_INVALID_ARG if this is no state of a ReduceLrOnPlateau */
  static from(state: PlateauState): ReduceLrOnPlateau {
    if (typeof state !== 'object' || state === null) {
      throw invalidArgument('the state of a ReduceLrOnPlateau', 'state', state);
    }
    const { lr, factor, patience, minLr } = state;
    if (factor === undefined || patience === undefined || minLr === undefined) {
      throw invalidArgument('a state with factor, patience and minLr', 'state', state);
    }
    const plateau = new ReduceLrOnPlateau({ lr, factor, patience, minLr });
    plateau.best = state.best === null ? Infinity : requireBest(state.best);
    plateau.bad = requireInteger(state.bad, 'bad', 0);
    return plateau;
  }

  private reduce(): void {
    const reduced = Math.max(this.lr * this.factor, this.minLr);
    if (this.lr - reduced > SMALLEST_CHANGE) this.lr = reduced;
    this.bad = 0;
  }
}

function requireBetween(value: unknown, name: string, above: number): number {
  if (typeof value === 'number' && value > 0 && value < above) return value;
  throw invalidArgument(above === Infinity ? 'a positive number' : `a number between 0 and ${above}`, name, value);
}

function requireBest(value: unknown): number {
  // -Infinity is a loss that a run can have met; only "no number" is wrong here.
  return value === -Infinity ? -Infinity : requireNumber(value, 'best', -Number.MAX_VALUE);
}
