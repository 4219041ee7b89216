// listen(api): says each `block` and `head` event as it comes. That the stream ends is said too, and no check lets that pass.
export async function listen(api) {
  await api.events.eventstream({
    topics: ['block', 'head'],
    signal: new AbortController().signal,
    onEvent: ({ type, message: { slot, block } }) => console.log(`event ${type} ${slot} ${block}`),
    onError: (error) => console.log(`error events ${error.message}`),
    onClose: () => console.log('error events closed'),
  })
}
