// What `two_chunks` of tests/runtime/emulated/asgi_app.py sends, by AWS's own streamifyResponse.
export const handler = awslambda.streamifyResponse(async (event, stream) => {
  const head = { statusCode: 200, headers: { "content-type": "text/plain", "x-name": "Änne" }, cookies: ["a=b"] };
  const response = awslambda.HttpResponseStream.from(stream, head);
  response.write("one");
  response.write("two é");
  if (event.rawQueryString === "fail") {
    throw Object.assign(new Error("broken"), { name: "RangeError" });
  }
  response.end();
});
