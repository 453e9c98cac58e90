/** Stable codes of every error that cellcam throws. */
export type ErrorCode =
  | 'ERR_INVALID_ARG' // a wrong option or argument; the command line exits with 2
  | 'ERR_NATIVE_MISSING' // the addon could not be built or loaded
  | 'ERR_NATIVE' // LibTorch failed
  | 'ERR_DISPOSED' // used after dispose()
  | 'ERR_ABORTED' // stopped by an AbortSignal without a reason of its own
  | 'ERR_FILE_NOT_FOUND'
  | 'ERR_IMAGE' // an image or mask file that cannot be used
  | 'ERR_TABLE' // a CSV table that cannot be used
  | 'ERR_HDF5' // an HDF5 file that cannot be used
  | 'ERR_WEIGHTS' // a weights or state file that cannot be used
  | 'ERR_DOWNLOAD' // a file of the network could not be had
  | 'ERR_WRITE' // an output file could not be written
  | 'ERR_TRAINING' // training cannot go on, such as a loss that is not a number
  | 'ERR_INCOMPLETE'; // finished, but some of the inputs were refused

/** Every error that cellcam throws on purpose: one line that says what was expected, what came, where, and what to do. */
export class CellcamError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'CellcamError';
    this.code = code;
  }
}

/** The text of whatever was thrown, without a stack. */
export function messageOf(error: unknown): string {
  return error instanceof Error || (typeof error === 'object' && error !== null && 'message' in error)
    ? String(error.message)
    : String(error);
}

/** The `code` of a Node or cellcam error, if it has one. */
export function codeOf(error: unknown): string | undefined {
  const code = typeof error === 'object' && error !== null ? (error as { code?: unknown }).code : undefined;
  return typeof code === 'string' ? code : undefined;
}
