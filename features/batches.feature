Feature: A batch is answered entry by entry, in its order
  That holds for any mix of entries, and while nodes die.

  Scenario: Valid, invalid, blocked and unanswered entries side by side
    Given a primary geth
    And the proxy runs
    When a client sends:
      """
      [{"jsonrpc":"2.0","id":"b","method":"eth_chainId"}, 7,
       {"jsonrpc":"2.0","id":2,"method":"admin_peers"},
       {"jsonrpc":"2.0","method":"eth_chainId"},
       {"jsonrpc":"2.0","id":null,"method":"net_version"},
       {"jsonrpc":"2.0","id":4},
       {"jsonrpc":"2.0","id":5,"method":"eth_call","params":[]},
       {"jsonrpc":"2.0","id":6,"method":"eth_subscribe","params":["newHeads"]},
       {"jsonrpc":"2.0","id":"b","method":"net_listening"}]
      """
    Then the answers are, in this order:
      | id   | outcome |
      | "b"  | "0x539" |
      | null | -32600  |
      | 2    | -32601  |
      | null | "1337"  |
      | 4    | -32600  |
      | 5    | -32602  |
      | 6    | -32601  |
      | "b"  | true    |

  Scenario: A batch that wants no answer is carried out
    Given a primary geth
    And the proxy runs
    And geth has been asked for eth_gasPrice 0 times
    When a client sends:
      """
      [{"jsonrpc":"2.0","method":"eth_gasPrice"},{"jsonrpc":"2.0","method":"eth_gasPrice"}]
      """
    Then the client gets an empty answer with HTTP status 200
    And geth has been asked for eth_gasPrice 2 times

  Scenario: The node dies in the middle of a batch
    Given a primary geth
    And a backup provider
    And the settings:
      | health.timeout | "5s" |
    And the proxy runs
    When geth answers 100 ms late
    And a batch of 60 calls is under way, 20 of them at geth
    And geth goes down
    Then the batch is answered whole and in order

  Scenario: A batch as long as the limit passes, one longer does not
    Given a primary geth
    And the settings:
      | calls.max_batch | 4 |
    And the proxy runs
    When a client sends a batch of 4 calls
    Then the answer has 4 entries, each with its own id
    When a client sends a batch of 5 calls
    Then the client gets HTTP status 413
    And the client gets error -32005 for the reason max_batch
    And geth has been asked for eth_getBalance 4 times

  Scenario: An empty batch is no request
    Given a primary geth
    And the proxy runs
    When a client sends:
      """
      []
      """
    Then the client gets HTTP status 400
    And the client gets error -32600
    When a client calls eth_gasPrice
    Then the client gets a result
