Feature: Calls pass as they are, or are refused for a reason
  Bytes are not rewritten. Methods that must not be public are blocked. Limits have names.

  Background:
    Given a primary geth
    And a backup provider

  Scenario: Ids come back byte for byte
    Given the proxy runs
    Then each of these ids comes back byte for byte, with a result, an error and in a batch:
      | 0                                      |
      | -1                                     |
      | 18446744073709551616                   |
      | 123456789012345678901234567890         |
      | 1.50                                   |
      | 1e3                                    |
      | -0.0                                   |
      | null                                   |
      | ""                                     |
      | "a\\u0062\\u00e9"                      |
      | "\\ud83d\\ude00 \\"quoted\\" \\/"      |
      | "é😀"                                  |
      | "id"                                   |

  Scenario: Results pass byte for byte, and a call without an id gets no answer
    Given the proxy runs
    When a client sends:
      """
      { "params" : [], "method":"eth_chainId" ,"id" : 1.0 , "jsonrpc":"2.0"}
      """
    Then the answer is, byte for byte:
      """
      {"jsonrpc":"2.0","id":1.0,"result":"0x539"}
      """
    When a client sends:
      """
      {"jsonrpc":"2.0","method":"eth_chainId"}
      """
    Then the client gets an empty answer with HTTP status 200

  Scenario: The operator's methods are blocked, however they are written
    Given the proxy runs
    When a client calls web3_clientVersion
    Then the client is answered by geth
    And each of these methods is refused and reaches no node:
      | admin_peers                  |
      | admin_addPeer                |
      | ADMIN_peers                  |
      | Admin_Peers                  |
      | admin\\u005fpeers            |
      | \\u0061dmin_peers            |
      | personal_unlockAccount       |
      | miner_start                  |
      | engine_newPayloadV4          |
      | clique_propose               |
      | les_serverInfo               |
      | debug_setHead                |
      | anvil_setBalance             |
      | evm_mine                     |

  Scenario: Two keys of one meaning are refused
    Given the proxy runs
    When a client calls web3_clientVersion
    Then the client is answered by geth
    And each of these requests is refused as no request and reaches no node:
      | {"jsonrpc":"2.0","id":1,"method":"eth_chainId","method":"admin_peers"}        |
      | {"jsonrpc":"2.0","id":1,"method":"eth_chainId","Method":"admin_peers"}        |
      | {"jsonrpc":"2.0","id":1,"METHOD":"admin_peers"}                               |
      | {"jsonrpc":"2.0","id":1,"method":"eth_chainId","\\u004dethod":"admin_peers"}  |
      | {"jsonrpc":"2.0","id":1,"method":"eth_chainId","\\u006dethod":"admin_peers"}  |
      | {"jsonrpc":"2.0","id":1,"ID":2,"method":"eth_chainId"}                        |
      | {"jsonrpc":"2.0","id":1,"id":2,"method":"eth_chainId"}                        |
      | {"jsonrpc":"2.0","id":1,"method":"eth_call","params":[],"Params":[]}          |
      | {"jsonrpc":"2.0","id":1,"method":"eth_call","params":[],"param\\u017f":[]}    |

  Scenario: A method that the operator allows passes, and none like it
    Given the settings:
      | calls.allowed | ["admin_peers"] |
    And the proxy runs
    When a client calls admin_peers
    Then geth has been asked for admin_peers 1 time
    When a client calls admin_Peers
    Then the client gets error -32601
    When a client calls admin_addPeer
    Then the client gets error -32601
    And geth has been asked for admin_addPeer 0 times

  Scenario: A method that the operator blocks is refused from the reload on
    Given the proxy runs
    When a client calls eth_accounts
    Then the client gets a result
    When the operator changes the settings and reloads:
      | calls.blocked | ["eth_accounts"] |
    Then the reload is applied
    When a client calls eth_accounts
    Then the client gets error -32601
    And geth has been asked for eth_accounts 1 time

  Scenario: A body as long as the limit passes, one longer does not
    Given the settings:
      | calls.max_body | "2KiB" |
    And the proxy runs
    When a client sends a body of 2048 bytes
    Then the client gets a result
    When a client sends a body of 2049 bytes
    Then the client gets HTTP status 413
    And the client gets error -32005 for the reason max_body
    When a client sends 2048 bytes in pieces, and does not say how many come
    Then the client gets a result
    When a client sends 2049 bytes in pieces, and does not say how many come
    Then the client gets HTTP status 413
    And the client gets error -32005 for the reason max_body

  Scenario Outline: The method <method> is not for calls
    Given the proxy runs
    When a client calls eth_gasPrice
    Then the client gets a result
    When a client sends the HTTP method <method>
    Then the client gets HTTP status 405

    Examples:
      | method |
      | PUT    |
      | DELETE |

  Scenario: A body that is not JSON is refused, and the next call is served
    Given the proxy runs
    When a client sends:
      """
      {"jsonrpc":"2.0","id":1,"method":"eth_chainId"
      """
    Then the client gets HTTP status 400
    And the client gets error -32700
    When a client calls eth_gasPrice
    Then the client gets a result

  Scenario: Calls that want no answer are made once, and do not speak against the node
    Given the proxy runs
    And geth has been asked for eth_gasPrice 0 times
    When a client sends 10 calls without an id, one after the other
    Then geth has been asked for eth_gasPrice 10 times
    And provider has been asked for eth_gasPrice 0 times
    And geth is found up, and never unusable, for 200 ms
    When a client calls web3_clientVersion
    Then the client is answered by geth
