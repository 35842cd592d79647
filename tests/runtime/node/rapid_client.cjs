// In the place of the compiled half of aws-lambda-ric, which asks for work and posts buffered answers. With
// AWS_LAMBDA_NODEJS_USE_ALTERNATIVE_CLIENT_1 AWS's JavaScript asks for work itself, and a streamed answer is its
// JavaScript's in any case; so nothing here is ever called, and every byte that the test compares is AWS's own.
const Module = require("node:module");

const load = Module._load;
const refuse = () => {
  throw new Error("only streamed answers can be had without the compiled half");
};

Module._load = function (request, ...rest) {
  return request.endsWith("rapid-client.node")
    ? { next: refuse, done: refuse, error: refuse }
    : load.call(this, request, ...rest);
};
