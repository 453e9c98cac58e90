/** @type {import('jest').Config} */
module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.test.ts'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { parser: { syntax: 'typescript' }, target: 'es2022' }, module: { type: 'commonjs' } },
    ],
  },
  // The compiled package is what is tested, so that workers and the command line run the files that users get.
  modulePathIgnorePatterns: ['<rootDir>/build/'],
  testTimeout: 120000,
  maxWorkers: 1,
};
